"""Opens the items of a split lazily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

from moextend.bench.data.items import Item, prompt_text, target_text
from moextend.bench.data.parts import Content, rows_of
from moextend.bench.data.source import Part, files_of, find_source, parse_split, place
from moextend.bench.scorers import is_lettered, search
from moextend.bench.task import Data, Join, TaskSpec
from moextend.data import cells, opening
from moextend.data.conversations import Conversations
from moextend.data.each import Each
from moextend.data.examples import Reader, cell, check_choice, check_letters, no_column
from moextend.data.matching import Matching
from moextend.data.media import MediaRef
from moextend.data.table import Row, Table
from moextend.errors import InputError, SpecError, counted
from moextend.util.files import stamp

SplitName = Literal["train", "test"]


class Joined:
    """A table with an additional column: the image from another table, found by the id in the column `join.by`."""

    def __init__(self, table: Table, images: Table, join: Join) -> None:
        self.columns = tuple(dict.fromkeys((*table.columns, join.image)))
        self.source = table.source
        self._table, self._images, self._by, self._image = table, images, join.by, join.image
        self._rows = {cells.text(name): row for row, name in enumerate(images.column(join.id))}

    def __len__(self) -> int:
        return len(self._table)

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`, with its image from the other table."""
        own = [name for name in columns if name != self._image]
        if len(own) == len(columns):
            return self._table.row(i, columns)
        row = self._table.row(i, tuple(dict.fromkeys((*own, self._by))))
        return {**row, self._image: self._looked_up(row.get(self._by), self.where(i))}

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column; for the image column the ids of the images."""
        return self._table.column(self._by if name == self._image else name)

    def where(self, i: int) -> str:
        """File and row, for error messages."""
        return self._table.where(i)

    def home(self, i: int) -> Path | None:
        """Folder of the file of row `i`."""
        return self._table.home(i)

    def _looked_up(self, name: Any, where: str) -> Any:
        at = self._rows.get(cells.text(name))
        if at is None:
            raise InputError(
                f"there is no image '{cells.text(name)}' in {self._images.source}.",
                where=f"{where}: column '{self._by}'",
                hint="Check data.join of the task.",
            )
        return self._images.row(at, (self._image,)).get(self._image)


def open_items(
    task: TaskSpec, split: SplitName, workspace: Path, limit: int | None = None, *, media: bool = True,
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


def _empty_part(task: TaskSpec, split: SplitName, table: Table, part: Part) -> InputError:
    """Error for a part without rows."""
    shown = task.columns.by_modality
    what = "group" if task.columns.group else next(iter(shown), "question")
    if part.side is not None and (part.low, part.high) == (0, 100):
        return InputError(
            f"the {counted(len(table), 'row')} of {table.source} share one {what}, and rows that share one stay "
            "together.",
            where=_at(task, f"data.{split}"),
            hint=f"Use data with a second {what}, or a folder with the files train and test.",
        )
    sides = "" if part.side else f" (train: '{part.split}[train]', test: '{part.split}[test]')"
    return InputError(
        f"none of the {len(table):,} rows of {table.source} falls into this part: rows are assigned to parts by their "
        "hash, and rows that share a medium or a group stay together.",
        where=_at(task, f"data.{split}"),
        hint=f"Use more data, a larger part, or a division by content, which leaves no side empty{sides}."
        if sides
        else "Use more data, or a larger part.",
    )


def conversations(task: TaskSpec, workspace: Path) -> Conversations[Item]:
    """All training conversations of a task; items of the same medium are turns of one conversation."""
    items = open_items(task, "train", workspace)
    return Conversations(
        items.item, items.groups(), lambda item: prompt_text(task, item), lambda item: target_text(task, item)
    )


@dataclass(frozen=True)
class Opened(opening.Opened):
    """All rows of a split, also if the task uses only a part of them."""

    part: Part


def open_table(task: TaskSpec, split: SplitName, workspace: Path) -> Opened:
    """All rows of a split, without the task's columns."""
    data = data_of(task)
    part = parse_split(_split_name(task, split), where=_at(task, f"data.{split}"))
    opened = _opened(task, data, part, workspace, where=_at(task, f"data.{split}"))
    if data.join is not None:
        opened = _joined(task, data, data.join, opened, workspace)
    if data.where is not None:
        opened = replace(opened, table=_matching(task, data.where, opened.table))
    if data.each is None:
        return opened
    for name in data.each:
        if name not in opened.table.columns:
            raise no_column(name, opened.table, where=_at(task, "data.each"))
    return replace(opened, table=Each(opened.table, data.each))


def _matching(task: TaskSpec, where: Mapping[str, str], table: Table) -> Matching:
    """Rows that match `data.where`."""
    for name in where:
        if name not in table.columns:
            raise no_column(name, table, where=_at(task, "data.where"))
    found = Matching(table, where)
    if twice := set(found.columns[len(table.columns) :]) & set(table.columns):
        raise SpecError(
            f"the group '{min(twice)}' has the name of a column.",
            where=_at(task, "data.where"),
            hint="Rename it.",
        )
    if not len(found):
        raise InputError(
            f"none of the {len(table):,} rows of {table.source} matches.",
            where=_at(task, "data.where"),
            hint="Correct the patterns: each must match the whole cell.",
        )
    return found


def _joined(task: TaskSpec, data: Data, join: Join, opened: Opened, workspace: Path) -> Opened:
    """Rows with images from another table."""
    other = data.model_copy(update={"config": join.config})
    images = _opened(task, other, Part(join.split), workspace, where=_at(task, "data.join.split"))
    for key, name in (("id", join.id), ("image", join.image)):
        if name not in images.table.columns:
            raise no_column(name, images.table, where=_at(task, f"data.join.{key}"))
    if join.by not in opened.table.columns:
        raise no_column(join.by, opened.table, where=_at(task, "data.join.by"))
    joined = Joined(opened.table, images.table, join)
    return replace(opened, table=joined, files=(*opened.files, *images.files))


def _opened(task: TaskSpec, data: Data, part: Part, workspace: Path, *, where: str) -> Opened:
    source = find_source(data, task.folder(), workspace, where=_at(task, "data.path"))
    folder = source.folder if data.images is None else place(data.images, task.folder(), workspace)
    if source.hub is not None:
        found = opening.open_remote(
            source.hub, part.split, folder, config=data.config, revision=data.revision,
            where=_at(task, "data.path"),
        )  # fmt: skip
    else:
        files = files_of(source, part.split, where=where)
        found = opening.open_files(files, folder, workspace / ".cache")
    return Opened(found.table, found.folder, found.files, part)


def data_of(task: TaskSpec) -> Data:
    """Data of the task. Raises SpecError for a text task, whose data belongs to lm-eval."""
    if task.data is None:
        raise SpecError(f"a {task.kind} task has no data.", where=_at(task, "data"), hint="Use a vqa task.")
    return task.data


def _split_name(task: TaskSpec, split: SplitName) -> str:
    data = data_of(task)
    name = data.train if split == "train" else data.test
    if name is None:
        raise InputError(
            "is null: this task is only scored.", where=_at(task, "data.train"), hint="Name a split."
        )
    return name


def _at(task: TaskSpec, key: str) -> str:
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
