"""Rows of a part of a split, such as `train[:90%]`: rows that share a medium, or a group, are in the same part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from moextend.bench.data.source import Part
from moextend.bench.task import TaskSpec
from moextend.data import cells
from moextend.data.columns import several
from moextend.data.table import Table


def rows_of(table: Table, part: Part, task: TaskSpec, *, shuffle: bool) -> Sequence[int]:
    """Rows of the part, in the order of the table, or shuffled by their hashes.

    A row is assigned by the hash of its group, else of its media, else of its number. Rows that share one of several
    media have the same hash, also if they share it through other rows.
    """
    if part.is_full_split and not shuffle:
        return range(len(table))
    hashes = _joined(_keys(table, task))
    rows = [i for i, value in enumerate(hashes) if part.low <= value % 100 < part.high]
    return sorted(rows, key=lambda i: hashes[i]) if shuffle else rows


def _keys(table: Table, task: TaskSpec) -> list[list[int]]:
    """Per row the hashes of its group, of its media, or of its number: the first of these that it has."""
    media = [name for names in task.columns.by_modality.values() for name in several(names, table.columns)]
    columns = [task.columns.group] if task.columns.group else list(dict.fromkeys(media))
    if not columns:
        return [[_hash(i)] for i in range(len(table))]
    rows = zip(*(table.column(name) for name in columns), strict=True)
    found = ([_hash(value) for cell in row for value in _each(cell)] for row in rows)
    return [keys or [_hash(i)] for i, keys in enumerate(found)]


def _joined(rows: Sequence[Sequence[int]]) -> list[int]:
    """Per row the least first key of all rows that are connected with it by a key."""
    parents: dict[int, int] = {}

    def root(key: int) -> int:
        while (parent := parents.get(key, key)) != key:
            parents[key] = key = parents.get(parent, parent)
        return key

    for keys in rows:
        for other in keys[1:]:
            parents[root(other)] = root(keys[0])
    least: dict[int, int] = {}
    for keys in rows:
        own = root(keys[0])
        least[own] = min(least.get(own, keys[0]), keys[0])
    return [least[root(keys[0])] for keys in rows]


def _each(cell: Any) -> list[Any]:
    """The values of a cell, without empty ones."""
    if isinstance(cell, list | tuple):
        return [value for part in cell for value in _each(part)]
    if isinstance(cell, Mapping):
        value = next((cell[key] for key in ("bytes", "array", "path") if cell.get(key) is not None), None)
        return [] if value is None else [value]
    return [] if cells.missing(cell) or cell == "" else [cell]


def _hash(value: Any) -> int:
    """A number of 64 bits."""
    if hasattr(value, "tobytes"):
        value = value.tobytes()
    raw = value if isinstance(value, bytes) else cells.text(value).encode()
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big")
