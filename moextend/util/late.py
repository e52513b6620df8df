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
        if fullname not in self.actions:
            return None
        others = [each for each in sys.meta_path if each is not self and hasattr(each, "find_spec")]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            self._take(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            if action := self._take(module.__name__):  # the loader of a zip file is that of all its modules
                action()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec

    def _take(self, name: str) -> Callable[[], None] | None:
        """The function that waits for a module, once."""
        action = self.actions.pop(name, None)
        if not self.actions:  # a new list, because another thread may be walking through this one
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        return action


_WAITING = _Waiting()


def when_imported(module: str, action: Callable[[], None]) -> None:
    """Calls `action` when `module` has been imported: now, if it is already."""
    if module in sys.modules:
        action()
        return
    if not _WAITING.actions:
        sys.meta_path.insert(0, _WAITING)
    _WAITING.actions[module] = action
