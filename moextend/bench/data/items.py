"""Items of a task, with their prompts and target answers; and the rows of a part of a split, such as `train[:90%]`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from moextend.bench.data.source import Part, tested
from moextend.bench.scorers import own_answer
from moextend.bench.task import TaskSpec
from moextend.data import cells, conversations
from moextend.data.digests import FileDigests
from moextend.data.examples import Example, Reader, several
from moextend.data.media import MediaRef
from moextend.data.table import Table
from moextend.errors import InputError


@dataclass(frozen=True)
class Item(Example):
    """An example with its id and kind."""

    id: str = field(kw_only=True)
    """Unique among the items of a split."""
    kind: str | None = field(default=None, kw_only=True)
    """Kind of question, for scores by kind."""

    @property
    def image_name(self) -> str:
        """File name of the first image; "" for an image in memory or an item without images."""
        path = self.media[0].path if self.media else None
        return path.name if path else ""


def prompt_text(task: TaskSpec, item: Item) -> str:
    """Prompt of `item`, with one `<image>` mark for each of its images."""
    return conversations.prompt_text(task.layout, item)


def target_text(task: TaskSpec, item: Item) -> str:
    """Target answer of `item`: the most common answer of its annotators, or the letter of this choice."""
    return own_answer(task.scorer, item)


def asked(item: Example) -> str:
    """Everything that an example asks in words; the order of its choices does not count."""
    return " ".join([item.question, *item.fields.values(), *sorted(item.choices or ())])


@dataclass(frozen=True)
class Content:
    """What the rows of a table are divided by."""

    task: TaskSpec = field(compare=False)
    reader: Callable[[], Reader] = field(compare=False)
    """Makes a reader of the table with its media."""
    cache: Path = field(compare=False)
    """Folder of the digests of files."""
    key: str
    """What equal tables have: the files with their stamps, and the settings of the task."""


def rows_of(table: Table, part: Part, content: Content, *, shuffle: bool) -> Sequence[int]:
    """Rows of the part, in the order of the table, or shuffled by their hashes.

    A part in percent assigns a row by the hash of its group, else of its media (the bytes or the path in the cell),
    else of its number. The sides `[train]` and `[test]` assign it by its content, which no path, format or order of
    the rows changes. Rows that share a group or one of several media are in the same part, also if they share it
    through other rows.
    """
    if part.is_full_split and not shuffle:
        return range(len(table))
    if part.side is None:
        hashes = _joined(_keys(table, content.task))
    else:
        hashes = _hashes(content) if content.task.columns.by_modality else _hashes_of_texts(content)
    rows: Iterable[int] = range(len(hashes))
    if part.side is not None:
        test = _test_side(hashes)
        rows = [i for i in rows if (hashes[i] in test) == (part.side == "test")]
    rows = [i for i in rows if part.low <= hashes[i] % 100 < part.high]
    return sorted(rows, key=lambda i: hashes[i]) if shuffle else rows


def _test_side(hashes: Sequence[int]) -> set[int]:
    """Hashes of the test items: the lowest ones, until they are enough (see `tested`), and never more than half."""
    sizes, found, taken = Counter(hashes), set[int](), 0
    for value in sorted(sizes):
        if taken < tested(len(hashes)) and taken + sizes[value] <= len(hashes) / 2:
            found.add(value)
            taken += sizes[value]
    return found


def _hashes(content: Content) -> list[int]:
    """Per row the least digest of the media, or hash of the words, that it shares with other rows."""
    reader, keys = content.reader(), list[list[int]]()
    groups = reader.groups(range(len(reader.table)))
    with FileDigests(content.cache) as known:
        for i, group in enumerate(groups):
            shown = reader.media([i]) if content.task.columns.by_modality else ()
            media = [key for ref in shown if (key := _digest(ref, known)) is not None]
            own = media or [_hash(asked(reader.example(i)))]
            keys.append([*own, _hash(f"group {group}")] if group else own)
    return _joined(keys)


_hashes_of_texts = lru_cache(maxsize=4)(_hashes)
"""The same, kept in the process: the files of the rows contain everything, and have not changed."""


def _digest(ref: MediaRef, known: FileDigests) -> int | None:
    """First 64 bits of a medium's digest; of its file's name if it cannot be read; None without a medium."""
    if ref.data is None and ref.path is None:
        return None
    try:
        return int(known.of_medium(ref), 16)
    except InputError:  # whoever opens it says what is wrong
        return _hash(ref.path.name if ref.path else ref.where)


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
