"""YAML with limits: a file of a few hundred bytes must not fill the memory, and no value the screen.

Aliases count as their expansion, so a few lines cannot become billions of values. Nesting and length are limited.
Repeated keys in users' files are errors, because the second would silently override the first.
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
"""Maximum number of characters of a YAML text."""
DIGITS = 1_000
"""Maximum number of digits of a whole number. Python does not print numbers of more than 4,300."""
VALUES = 10_000
"""Maximum number of values of a YAML text; an alias counts as its expansion."""
DEPTH = 50
"""Maximum depth of nested lists and mappings."""


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits; repeated keys are errors."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._values, self._depth = 0, 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Composes a value; ConstructorError above a limit."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        alias = self.check_event(yaml.AliasEvent)
        before, self._depth = self._values, self._depth + 1
        if self._depth > DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {DEPTH} nested levels", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        problem = ""
        if isinstance(node, yaml.ScalarNode) and (found := files.lone(node.value)):
            problem = f"a lone surrogate ({found}), which is not a character"
        elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and len(node.value) > DIGITS:
            problem = f"a number of {len(node.value):,} digits, more than {DIGITS:,}"
        elif alias and id(node) not in self._sizes:
            problem = "an alias inside the value that it refers to"
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, mark)
        self._values += self._sizes[id(node)] if alias else 1
        if self._values > VALUES:
            raise yaml.composer.ComposerError(None, None, f"more than {VALUES:,} values", mark)
        if not alias:
            self._sizes[id(node)] = self._values - before
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
    """Value of a YAML text; SpecError with line and column if it is invalid or exceeds a limit."""
    return copy.deepcopy(_guarded(lambda: _loaded(_short_enough(text, where)), where))


@lru_cache(maxsize=256)
def _loaded(text: str) -> Any:
    """The value, kept: one command reads the same tasks and sequences several times, for 10 ms each."""
    return yaml.load(text, Loader=Loader)


def compose(text: str, *, where: str) -> yaml.Node | None:
    """Nodes of a YAML text, without construction; SpecError as in `load`."""
    node: yaml.Node | None = _guarded(lambda: yaml.compose(_short_enough(text, where), Loader=Loader), where)
    return node


def read_text(path: Path) -> str:
    """Text of a YAML file; InputError if it does not exist, SpecError if it is too long or not UTF-8."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise SpecError("is not a regular file.", where=str(path), hint="Name a YAML file.")
        if found.st_size > 4 * LENGTH:
            raise _too_long(found.st_size, str(path))
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


def _short_enough(text: str, where: str) -> str:
    if len(text) > LENGTH:
        raise _too_long(len(text), where)
    return text


def _too_long(length: int, where: str) -> SpecError:
    return SpecError(
        f"has {length:,} characters, more than {LENGTH:,}.",
        where=where,
        hint="Put data into separate files.",
    )


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
