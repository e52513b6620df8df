"""Tables of names: name -> "module:object", loaded on use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar

from moextend.errors import UnknownName

T = TypeVar("T")


def choose(kind: str, name: str, table: Mapping[str, T], *, where: str | None = None) -> T:
    """Entry of `name`; UnknownName with the nearest known name if there is none."""
    if name not in table:
        raise UnknownName(kind, name, table, where=where)
    return table[name]


def load(target: str) -> Any:
    """Object of "package.module:attribute"; without a colon, the module."""
    module, _, attribute = target.partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found
