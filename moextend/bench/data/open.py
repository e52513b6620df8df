"""Opens the items of a split lazily; and digests of data, for the keys of results that were computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from moextend.bench.data.items import Content, Item, prompt_text, rows_of, target_text
from moextend.bench.data.source import Part, Split, files_of, find_source, parse_split, place
from moextend.bench.scorers import is_lettered, search
from moextend.bench.task import Data, Join, TaskSpec
from moextend.data import cells
from moextend.data.conversations import Conversations
from moextend.data.digests import FileDigests
from moextend.data.examples import Reader, cell, check_choice, check_letters, no_column, several
from moextend.data.hub import commit_of
from moextend.data.media import MediaRef
from moextend.data.selections import Each, Joined, Matching
from moextend.data.source import Opened as OpenedRows
from moextend.data.source import open_files, open_remote
from moextend.data.table import ArrowTable, Table
from moextend.errors import InputError, SpecError, counted
from moextend.util.files import digest, stamp


def open_items(
    task: TaskSpec, split: Split, workspace: Path, limit: int | None = None, *, media: bool = True,
    strict: bool = True,
) -> Items:  # fmt: skip
    """Items of a split, in the order of the data or shuffled (the first `limit`). Media are read on use.

    Args:
        media: False: the columns of images and other media are not read.
        strict: raise an error for an answer that its scorer does not find among the choices.

    Raises:
        InputError: the data cannot be opened, or lacks a column of the task; with file, row, column and hint.
    """
    search(workspace)
    opened = open_table(task, split, workspace)
    table, part = opened.table, opened.part
    reader = Reader(table, task.layout, opened.folder, media=media)
    content = Content(
        task,
        lambda: Reader(table, task.layout, opened.folder),
        workspace / ".cache",
        f"{[(str(path), stamp(path.stat())) for path in opened.files]} {task.model_dump_json()}",
    )
    rows = rows_of(table, part, content, shuffle=data_of(task).shuffle)
    if not rows:
        if part.side is not None:
            for medium in content.reader().media([0]):
                medium.open()  # files that are all alike are often all broken
        raise _empty_part(task, split, table, part)
    items = Items(task, reader, rows[:limit], strict=strict)
    items.check_ids()
    return items


def _empty_part(task: TaskSpec, split: Split, table: Table, part: Part) -> InputError:
    """Error for a part without rows."""
    what = "group" if task.columns.group else next(iter(task.columns.by_modality), "question")
    return InputError(
        f"none of {table.source} ({counted(len(table), 'row')}) falls into '{part.undivided}': rows are assigned by "
        f"hashes, and rows that share one {what} stay together.",
        where=at_key(task, f"data.{split}"),
        hint=f"Use data with a second {what}, or a folder with the files train and test.",
    )


def conversations(task: TaskSpec, workspace: Path) -> Conversations[Item]:
    """All training conversations of a task; items of the same medium are turns of one conversation."""
    items = open_items(task, "train", workspace)
    return Conversations(
        items.item, items.groups(), lambda item: prompt_text(task, item), lambda item: target_text(task, item)
    )


@dataclass(frozen=True)
class Opened(OpenedRows):
    """All rows of a split, also if the task uses only a part of them."""

    part: Part


def open_table(task: TaskSpec, split: Split, workspace: Path) -> Opened:
    """All rows of a split, without the task's columns."""
    data = data_of(task)
    part = parse_split(_split_name(task, split), where=at_key(task, f"data.{split}"))
    opened = _opened(task, data, part, workspace, where=at_key(task, f"data.{split}"))
    if data.join is not None:
        opened = _joined(task, data, data.join, opened, workspace)
    if data.where is not None:
        opened = replace(opened, table=_matching(task, data.where, opened.table))
    if data.each is None:
        return opened
    for name in data.each:
        if name not in opened.table.columns:
            raise no_column(name, opened.table, where=at_key(task, "data.each"))
    return replace(opened, table=Each(opened.table, data.each))


def _matching(task: TaskSpec, where: Mapping[str, str], table: Table) -> Matching:
    """Rows that match `data.where`."""
    for name in where:
        if name not in table.columns:
            raise no_column(name, table, where=at_key(task, "data.where"))
    found = Matching(table, where)
    if twice := set(found.groups) & set(table.columns):
        raise SpecError(
            f"the group '{min(twice)}' has the name of a column.",
            where=at_key(task, "data.where"),
            hint="Rename it.",
        )
    if not len(found):
        raise InputError(
            f"none of the {len(table):,} rows of {table.source} matches.",
            where=at_key(task, "data.where"),
            hint="Correct the patterns: each must match the whole cell.",
        )
    return found


def _joined(task: TaskSpec, data: Data, join: Join, opened: Opened, workspace: Path) -> Opened:
    """Rows with images from another table."""
    other = data.model_copy(update={"config": join.config})
    images = _opened(task, other, Part(join.split), workspace, where=at_key(task, "data.join.split"))
    for key, name in (("id", join.id), ("image", join.image)):
        if name not in images.table.columns:
            raise no_column(name, images.table, where=at_key(task, f"data.join.{key}"))
    if join.by not in opened.table.columns:
        raise no_column(join.by, opened.table, where=at_key(task, "data.join.by"))
    joined = Joined(opened.table, images.table, by=join.by, key=join.id, column=join.image)
    return replace(opened, table=joined, files=(*opened.files, *images.files))


def _opened(task: TaskSpec, data: Data, part: Part, workspace: Path, *, where: str) -> Opened:
    source = find_source(data, task.folder(), workspace, where=at_key(task, "data.path"))
    folder = source.folder if data.images is None else place(data.images, task.folder(), workspace)
    if source.hub is not None:
        found = open_remote(
            source.hub, part.split, folder, config=data.config, revision=data.revision,
            where=at_key(task, "data.path"),
        )  # fmt: skip
    else:
        files = files_of(source, part.split, where=where)
        found = open_files(files, folder, workspace / ".cache")
    return Opened(found.table, found.folder, found.files, part)


def data_of(task: TaskSpec) -> Data:
    """Data of the task. Raises SpecError for a text task, whose data belongs to lm-eval."""
    if task.data is None:
        raise SpecError(
            f"a {task.kind} task has no data.", where=at_key(task, "data"), hint="Use a vqa task."
        )
    return task.data


def _split_name(task: TaskSpec, split: Split) -> str:
    data = data_of(task)
    name = data.train if split == "train" else data.test
    if name is None:
        raise InputError(
            "is null: this task is only scored.", where=at_key(task, "data.train"), hint="Name a split."
        )
    return name


def at_key(task: TaskSpec, key: str) -> str:
    """Place of a key of a task, for messages."""
    return f"{task.path or task.task}: {key}"


class Items(Sequence[Item]):
    """Items of a split, which are created on access."""

    def __init__(self, task: TaskSpec, reader: Reader, rows: Sequence[int], *, strict: bool = True) -> None:
        self._task, self._reader, self._rows, self._strict = task, reader, rows, strict
        self._table, self.columns = reader.table, reader.table.columns
        self._lettered = is_lettered(task.scorer)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Items: ...
    def __getitem__(self, at: int | slice) -> Item | Items:
        if isinstance(at, slice):
            return Items(self._task, self._reader, self._rows[at], strict=self._strict)
        return self.item(at)

    def __iter__(self) -> Iterator[Item]:
        return map(self.item, range(len(self)))

    def groups(self) -> list[str | None]:
        """Group of every item; reads no other column."""
        return self._reader.groups(self._rows)

    def media_refs(self) -> Iterator[MediaRef]:
        """Media of all items, row by row; reads no other column."""
        return self._reader.media(self._rows)

    def check_ids(self) -> None:
        """Raises InputError if two items have the same id."""
        column = self._task.columns.id
        if column is None:
            return
        seen: dict[str, int] = {}
        for row, value in zip(self._rows, self._reader.column(column, self._rows), strict=True):
            name = self._name(value, row)
            if name in seen or not name:
                twice = (
                    f"'{name}' occurs twice, also at {self._table.where(seen[name])}" if name else "is empty"
                )
                raise InputError(
                    f"id {twice}.",
                    where=f"{self._table.where(row)}: column '{column}'",
                    hint="Name a column that is unique, or set columns.id: null to count the rows.",
                )
            seen[name] = row

    def _name(self, value: Any, i: int) -> str:
        """Id of an item: the cell, with the position in the row if a row has several items."""
        name = cells.text(value)
        return f"{name}-{self._table.entry(i)}" if name and isinstance(self._table, Each) else name

    def item(self, at: int) -> Item:
        """Item `at`."""
        i = self._rows[at]
        names, where = self._task.columns, self._table.where(i)
        row = self._reader.cells(i)
        item = Item(
            **vars(self._reader.example(i, row)),
            id=self._name(cell(row, names.id, where), i) if names.id else str(i),
            kind=cells.text(row.get(names.kind)) or None if names.kind else None,
        )
        if item.choices is not None and self._lettered:
            check_letters(item)
            if self._strict:
                check_gold(self._task, item)
        return item


def check_gold(task: TaskSpec, item: Item) -> None:
    """Raises InputError if a scorer of letters finds no choice in an item's answer.

    The scorer would fall back to exact match, and a model that answers by letter would score 0.
    """
    more = " (answer_as), or choose another scorer"
    check_choice(item, task.columns.answer, why=f"'{task.scorer}' needs one", more=more)


def data_digest(task: TaskSpec, split: Split, workspace: Path) -> str:
    """Digest of a split (sixteen hex digits): its files, and the files of media that they name."""
    opened = open_table(task, split, workspace)
    with FileDigests(workspace / ".cache") as known:
        files = [known.of(path) for path in opened.files]
        items = open_items(task, split, workspace)
        media = [] if _holds_media(opened, task) else [known.of_medium(ref) for ref in items.media_refs()]
    part = [opened.part.low, opened.part.high, *([opened.part.side] if opened.part.side else [])]
    where = task.data.model_dump(include={"where"}) if task.data else {}  # left out while unset
    return digest({"files": files, "images": media, "part": part, **where})


def hub_revision(task: TaskSpec, workspace: Path) -> str | None:
    """Commit of the opened hub data set of a task; None for other data."""
    if task.data is None:
        return None
    splits: tuple[Split, ...] = ("test", "train")  # a task that only aligns may have no test split
    for split in splits:
        with suppress(InputError):  # scoring or training reports this error
            if find_source(task.data, task.folder(), workspace, where="data.path").hub is None:
                return None
            return commit_of(open_table(task, split, workspace).files)
    return None


def _holds_media(opened: Opened, task: TaskSpec) -> bool:
    """Whether the files of the rows contain all media."""
    table: Table = opened.table
    while isinstance(table, Each | Matching):
        table = table.table
    columns = [
        name for column in task.columns.by_modality.values() for name in several(column, table.columns)
    ]
    return not columns or (isinstance(table, ArrowTable) and all(map(table.holds_bytes, columns)))
