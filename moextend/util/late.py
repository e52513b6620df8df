"""Functions that run once another package's module is imported, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Waiting:
    """A finder of `sys.meta_path` that finds no module itself, and acts after those that are waited for.

    It stays there only until the last of them is imported.
    """

    def __init__(self) -> None:
        self.actions: dict[str, Callable[[], None]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of a module that is waited for, whose loader then calls the function; None for any other module."""
        action = self.actions.pop(fullname, None)
        if action is None:
            return None
        if not self.actions:
            sys.meta_path.remove(self)
        from importlib.util import find_spec  # costs time, which only a process with that package pays

        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            action()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]  # of this loader only
        return spec


_WAITING = _Waiting()


def when_imported(module: str, action: Callable[[], None]) -> None:
    """Calls `action` when `module` has been imported: now, if it is already."""
    if module in sys.modules:
        action()
        return
    if not _WAITING.actions:
        sys.meta_path.insert(0, _WAITING)
    _WAITING.actions[module] = action
