"""Opens the items of a task's split, lazily."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, overload

from moextend.bench.data.join import Joined
from moextend.bench.scorers import is_lettered, search
from moextend.bench.scorers.rules import gold_position
from moextend.bench.task import Data, Join, TaskSpec
from moextend.data import cells
from moextend.data.each import Each
from moextend.data.hub import open_hub
from moextend.data.images import ImageRef
from moextend.data.llava import expand
from moextend.data.prompts import LETTERS, OWN_PLACEHOLDERS, Item, placeholders
from moextend.data.source import Part, files_of, locate, parse_split, place
from moextend.data.table import Row, Table, read_table
from moextend.errors import InputError, SpecError

SplitName = Literal["train", "test"]


def open_items(
    task: TaskSpec, split: SplitName, workspace: Path, limit: int | None = None, *, images: bool = True,
    strict: bool = True,
) -> Items:  # fmt: skip
    """The items of a split, in the order of the data (the first `limit`); no image is read before its use.

    Without `images` the column of images is not touched. Unless `strict`, an answer that its scorer cannot find among
    the choices passes.

    Raises:
        InputError: the data cannot be opened, or lacks a column of the task; with file, row, column and hint.
    """
    search(workspace)
    opened = open_table(task, split, workspace)
    table, part = opened.table, opened.part
    extra = tuple(name for name in placeholders(task) if name not in OWN_PLACEHOLDERS)
    _check_columns(task, table, extra)
    rows: Sequence[int] = range(len(table)) if part.is_full_split else _part_rows(table, part, task)
    if not rows:
        raise InputError("holds no rows.", where=_at(task, f"data.{split}"), hint="Choose another part.")
    items = Items(task, table, rows[:limit], opened.folder, extra, images=images, strict=strict)
    items.check_ids()
    return items


@dataclass(frozen=True)
class Opened:
    """The rows behind a split (all of them, also where the task takes only a part), and where they lie."""

    table: Table
    part: Part
    folder: Path | None
    files: tuple[Path, ...]


def open_table(task: TaskSpec, split: SplitName, workspace: Path) -> Opened:
    """The rows that a split is taken from, without a look at the task's columns."""
    data = data_of(task)
    part = parse_split(_split_name(task, split), where=_at(task, f"data.{split}"))
    opened = _opened(task, data, part, workspace, where=_at(task, f"data.{split}"))
    if data.join is not None:
        opened = _joined(task, data, data.join, opened, workspace)
    if data.each is None:
        return opened
    for name in data.each:
        if name not in opened.table.columns:
            raise _no_column(task, "data.each", name, opened.table)
    return replace(opened, table=Each(opened.table, data.each))


def _joined(task: TaskSpec, data: Data, join: Join, opened: Opened, workspace: Path) -> Opened:
    """The rows with the images that another table holds."""
    other = data.model_copy(update={"config": join.config})
    images = _opened(task, other, Part(join.split), workspace, where=_at(task, "data.join.split"))
    for key, name in (("id", join.id), ("image", join.image)):
        if name not in images.table.columns:
            raise _no_column(task, f"data.join.{key}", name, images.table)
    if join.by not in opened.table.columns:
        raise _no_column(task, "data.join.by", join.by, opened.table)
    joined = Joined(opened.table, images.table, join)
    return replace(opened, table=joined, files=(*opened.files, *images.files))


def _opened(task: TaskSpec, data: Data, part: Part, workspace: Path, *, where: str) -> Opened:
    source = locate(data, task.folder(), workspace, where=_at(task, "data.path"))
    folder = source.folder if data.images is None else place(data.images, task.folder(), workspace)
    if source.hub is not None:
        remote = open_hub(source.hub, part.split, data, where=_at(task, "data.path"))
        return Opened(expand(remote), part, folder, tuple(remote.files()))
    files = files_of(source, part.split, where=where)
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return Opened(_read(stamps, workspace / ".cache" / "hf-datasets"), part, folder, files)


@lru_cache(maxsize=8)
def _read(stamps: tuple[tuple[Path, int, int], ...], cache: Path) -> Table:
    """The table of files; kept in the process for as long as the files stay what they are."""
    return expand(read_table([path for path, _, _ in stamps], cache))


def data_of(task: TaskSpec) -> Data:
    """The task's data; SpecError for a text task, whose data belongs to lm-eval."""
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


def _columns(task: TaskSpec, extra: tuple[str, ...]) -> dict[str, str]:
    """key of the YAML -> column, of everything that the task reads."""
    named = {f"columns.{key}": name for key, name in task.columns.model_dump().items() if name is not None}
    return named | {f"prompt {{{name}}}": name for name in extra}


def several(name: str, table: Table) -> tuple[str, ...]:
    """The columns that hold choices or images: one with lists, or several with one each ("A,B,C,D")."""
    return (name,) if name in table.columns else tuple(part.strip() for part in name.split(","))


def _check_columns(task: TaskSpec, table: Table, extra: tuple[str, ...]) -> None:
    for key, column in _columns(task, extra).items():
        names = several(column, table) if key in ("columns.choices", "columns.image") else (column,)
        for name in names:
            if name not in table.columns:
                raise _no_column(task, key, name, table)


def _no_column(task: TaskSpec, key: str, name: str, table: Table) -> SpecError:
    near = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
    meant = f"Did you mean '{near[0]}'? " if near else ""
    return SpecError(
        f"no column '{name}' in {table.source}.",
        where=_at(task, key),
        hint=f"{meant}Columns: {', '.join(table.columns)}.",
    )


class Items(Sequence[Item]):
    """The items of a split; each is built when it is asked for."""

    def __init__(
        self,
        task: TaskSpec,
        table: Table,
        rows: Sequence[int],
        folder: Path | None,
        extra: tuple[str, ...] = (),
        *,
        images: bool = True,
        strict: bool = True,
    ) -> None:
        self._strict = strict
        self._task, self._table, self._rows, self._folder = task, table, rows, folder
        self.columns = table.columns
        self._extra, self._images = extra, images
        columns = dict(task.columns.model_dump())
        choices, image = columns.pop("choices"), columns.pop("image")
        self._choices = several(choices, table) if choices else ()
        # A box is made relative to its image, so that the image's size is needed even where it is not shown.
        self._shown = several(image, table) if image and (images or task.answer_as == "box") else ()
        wanted = [name for name in columns.values() if name is not None]
        self._wanted = tuple(dict.fromkeys([*wanted, *self._shown, *self._choices, *extra]))
        self._lettered = is_lettered(task.scorer)
        self._listed = "choices" in placeholders(task)
        self._absent = frozenset((task.data.absent if task.data else None) or ())

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Items: ...
    def __getitem__(self, at: int | slice) -> Item | Items:
        if isinstance(at, slice):
            return Items(
                self._task, self._table, self._rows[at], self._folder, self._extra, images=self._images,
                strict=self._strict,
            )  # fmt: skip
        return self._item(self._rows[at])

    def __iter__(self) -> Iterator[Item]:
        return (self._item(row) for row in self._rows)

    def groups(self) -> list[str | None]:
        """The group of every item, without reading anything else."""
        column = self._task.columns.group
        if column is None:
            return [None] * len(self)
        return [cells.text(value) or None for value in self._column(column)]

    def check_ids(self) -> None:
        """InputError where two items have one id."""
        column = self._task.columns.id
        if column is None:
            return
        seen: dict[str, int] = {}
        for row, value in zip(self._rows, self._column(column), strict=True):
            name = self._name(value, row)
            if name in seen or not name:
                twice = (
                    f"'{name}' stands twice, also at {self._table.where(seen[name])}" if name else "is empty"
                )
                raise InputError(
                    f"id {twice}.",
                    where=f"{self._table.where(row)}: column '{column}'",
                    hint="Name a column that is unique, or set columns.id: null to count the rows.",
                )
            seen[name] = row

    def _name(self, value: Any, i: int) -> str:
        """An item's id: the cell, and its place in the row where a row is several items."""
        name = cells.text(value)
        return f"{name}-{self._table.entry(i)}" if name and isinstance(self._table, Each) else name

    def _column(self, name: str) -> Iterator[Any]:
        if len(self._rows) == len(self._table):
            return self._table.column(name)
        return (self._table.row(i, (name,)).get(name) for i in self._rows)

    def _item(self, i: int) -> Item:
        row, names, where = self._row(i), self._task.columns, self._table.where(i)
        options, refs = self._options(row, where), self._refs(row, i, where)
        answers, position = self._answers(row, options, refs, where)
        item = Item(
            id=self._name(_cell(row, names.id, where), i) if names.id else str(i),
            images=refs if self._images else (),
            question=cells.text(_cell(row, names.question, where)) if names.question else "",
            answers=answers,
            choices=options,
            position=position,
            kind=cells.text(row.get(names.kind)) or None if names.kind else None,
            group=cells.text(row.get(names.group)) or None if names.group else None,
            row=where,
            fields={name: cells.text(row.get(name)) for name in self._extra},
        )
        if options is not None:
            self._check_choices(item)
        return item

    def _check_choices(self, item: Item) -> None:
        """InputError where letters cannot name the choices, or the answer is none of them."""
        choices = item.choices or ()
        if len(choices) > len(LETTERS) and (self._lettered or self._listed):
            raise InputError(
                f"has {len(choices)} choices, more than there are letters.",
                where=f"{item.row}: columns.choices",
                hint="Leave choices out, or take {choices} out of the prompt and choose a scorer of texts.",
            )
        if self._strict and self._lettered:
            check_gold(self._task, item)

    def _row(self, i: int) -> Row:
        """The cells of a row; those that stand for an empty one are empty."""
        row = self._table.row(i, self._wanted)
        if not self._absent:
            return row
        return {name: None if _among(value, self._absent) else value for name, value in row.items()}

    def _answers(
        self, row: Row, options: tuple[str, ...] | None, refs: tuple[ImageRef, ...], where: str
    ) -> tuple[tuple[str, ...], int | None]:
        name, form = self._task.columns.answer, self._task.answer_as
        value, at = _cell(row, name, where), f"{where}: column '{name}'"
        if form == "box" and refs:
            return (cells.box(value, refs[0].size(), where=at),), None
        if self._choices and options is None:
            value = cells.listed(value)
        found = cells.answers(value, options, where=at, form=form)
        return found, cells.position(value, options, where=at, form=form)

    def _refs(self, row: Row, i: int, where: str) -> tuple[ImageRef, ...]:
        if not self._shown:
            return ()
        folders = tuple(
            dict.fromkeys(folder for folder in (self._table.home(i), self._folder) if folder is not None)
        )
        found: list[ImageRef] = []
        for column in self._shown:
            value = _cell(row, column, where)
            if len(self._shown) == 1 or not cells.missing(value):
                found += cells.images(value, where=f"{where}: column '{column}'", folders=folders)
        return tuple(found)

    def _options(self, row: Row, where: str) -> tuple[str, ...] | None:
        if not self._choices:
            return None
        if len(self._choices) == 1:
            return cells.choices(row.get(self._choices[0]), where=f"{where}: column '{self._choices[0]}'")
        return cells.placed(row.get(name) for name in self._choices)

    def image_refs(self) -> Iterator[ImageRef]:
        """The images of all items, row by row, without reading the other columns."""
        for i in self._rows if self._shown else ():
            yield from self._refs(self._table.row(i, self._shown), i, self._table.where(i))


def check_gold(task: TaskSpec, item: Item) -> None:
    """InputError where a scorer of letters finds no choice in an item's answer.

    It would fall back to exact match, and a model that answers by letter would score 0.
    """
    if item.choices is not None and gold_position(item) is None:
        raise InputError(
            f"answer {item.answers[0][:80]!r} is none of the {len(item.choices)} choices, and '{task.scorer}' needs "
            "one.",
            where=f"{item.row}: column '{task.columns.answer}'",
            hint="Write it as it stands among the choices, its letter or its position from 0 (answer_as), or choose "
            "another scorer.",
        )


def _among(value: Any, texts: frozenset[str]) -> bool:
    return isinstance(value, str) and value in texts


def _cell(row: Row, column: str, where: str) -> Any:
    """A cell that must be there."""
    if column not in row:
        raise InputError(f"has no '{column}'.", where=where, hint="Add it or remove the row.")
    return row[column]


def _part_rows(table: Table, part: Part, task: TaskSpec) -> list[int]:
    """The rows whose image (or group) falls into the part, so that no image is on both sides."""
    column = task.columns.group or task.columns.image
    values: Iterator[Any] = iter(range(len(table))) if column is None else table.column(column)
    return [i for i, value in enumerate(values) if part.low <= _percent(value) < part.high]


def _percent(value: Any) -> int:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    raw = value if isinstance(value, bytes) else cells.text(value).encode()
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big") % 100
