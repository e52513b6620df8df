"""The user's YAML files: every error is one line with its place, and no value fills the screen.

Repeated keys are errors, because the second would silently override the first.
"""

from __future__ import annotations

import copy
import reprlib
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from moextend.errors import InputError, SpecError
from moextend.util import files

LENGTH = 1 << 19
"""Maximum number of bytes of a YAML file."""


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader; repeated keys and what cannot be shown are errors."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Composes a value; ComposerError for a lone surrogate, and for an alias inside the value it refers to."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        problem = ""
        if isinstance(node, yaml.ScalarNode) and (found := files.lone(node.value)):
            problem = f"a lone surrogate ({found}), which is not a character"
        elif isinstance(event, yaml.AliasEvent) and node is not None and node.end_mark is None:
            problem = "an alias inside the value that it refers to"
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Constructs a mapping; ConstructorError for a repeated key."""
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if (key.tag, key.value) in seen:
                first = seen[key.tag, key.value]
                problem = f"key '{key.value}' occurs twice, also in line {first}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[key.tag, key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def load(text: str, *, where: str) -> Any:
    """Value of a YAML text; SpecError with line and column if it is invalid."""
    return copy.deepcopy(_guarded(lambda: _loaded(text), where))


@lru_cache(maxsize=256)
def _loaded(text: str) -> Any:
    """The value, kept: one command reads the same tasks and sequences several times, for 10 ms each."""
    return yaml.load(text, Loader=Loader)


def compose(text: str, *, where: str) -> yaml.Node | None:
    """Nodes of a YAML text, without construction; SpecError as in `load`."""
    node: yaml.Node | None = _guarded(lambda: yaml.compose(text, Loader=Loader), where)
    return node


def read_text(path: Path) -> str:
    """Text of a YAML file; InputError if it does not exist, SpecError if it is too long or not UTF-8."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise SpecError("is not a regular file.", where=str(path), hint="Name a YAML file.")
        if found.st_size > LENGTH:
            what = f"has {found.st_size:,} bytes, more than {LENGTH:,}."
            raise SpecError(what, where=str(path), hint="Put data into separate files.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError("no such file.", where=str(path), hint="Check the path.") from error
    except UnicodeDecodeError as error:
        raise SpecError("is not UTF-8 text.", where=str(path), hint="Save it as UTF-8.") from error
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror}).", where=str(path), hint="Check its permissions."
        ) from error


def shown(value: Any) -> str:
    """A value for a message: its repr, shortened if it is long or deep."""
    return _SHOWN.repr(value)


_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother, _SHOWN.maxlong = 4, 100, 100, 40


def _guarded(read: Any, where: str) -> Any:
    try:
        return read()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise SpecError(f"not valid YAML ({problem}).", where=place, hint="Correct the YAML.") from error
    except SpecError:
        raise
    except Exception as error:  # a value that its tag does not fit, e.g. !!timestamp x: whatever that raises
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise SpecError(
            f"holds a value that cannot be read ({reason}).", where=where, hint="Correct the YAML."
        ) from error
