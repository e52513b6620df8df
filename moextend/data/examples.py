"""One row of data as an example: its question, images, choices and answers."""

from __future__ import annotations

import difflib
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moextend.data import cells
from moextend.data.cells import AnswerForm
from moextend.data.columns import Columns
from moextend.data.images import ImageRef
from moextend.data.table import Row, Table
from moextend.errors import InputError, SpecError

LETTERS = string.ascii_uppercase
OWN_PLACEHOLDERS = ("question", "choices")
"""Placeholders of a prompt that are not columns."""


@dataclass(frozen=True)
class Layout:
    """Settings that turn rows into examples, and examples into prompts."""

    columns: Columns
    prompt: str
    """Template with `<image>`, `{question}`, `{choices}` and other columns of the data."""
    open_prompt: str | None = None
    """Prompt of an example without choices among examples with choices; None: `prompt`."""
    answer_as: AnswerForm | None = field(default=None, kw_only=True)
    """Form of answers in the data; None: with choices a number is a position, everything else is text."""
    absent: tuple[str, ...] = field(default=(), kw_only=True)
    """Texts of empty cells."""
    where: str = field(kw_only=True)
    """File of the layout, for error messages."""

    def placeholders(self) -> tuple[str, ...]:
        """Names in braces in the prompts, each once. Raises SpecError if the braces are not balanced."""
        prompts = [text for text in (self.prompt, self.open_prompt) if text is not None]
        try:
            parts = [part for text in prompts for part in string.Formatter().parse(text)]
        except ValueError as error:
            raise self.wrong_prompt(
                f"cannot be read ({error}).", "Write a brace that is text twice: {{ or }}."
            ) from error
        names = [name for _, name, _, _ in parts if name is not None]
        for name in names:
            if not name.isidentifier():
                raise self.wrong_prompt(
                    f"no placeholder '{{{name}}}'.", "Name a column, or write {{ and }} for braces."
                )
        return tuple(dict.fromkeys(names))

    def more(self) -> tuple[str, ...]:
        """Columns in the prompts other than question and choices."""
        return tuple(name for name in self.placeholders() if name not in OWN_PLACEHOLDERS)

    def wrong_prompt(self, what: str, hint: str) -> SpecError:
        """An error of the prompt."""
        return SpecError(what, where=f"{self.where}: prompt", hint=hint)

    def check(self, table: Table) -> None:
        """Raises SpecError if the table lacks a column of the layout; the hint lists its columns."""
        named = {
            f"columns.{key}": name for key, name in self.columns.model_dump().items() if name is not None
        }
        named |= {f"prompt {{{name}}}": name for name in self.more()}
        for key, column in named.items():
            listed = key in ("columns.choices", "columns.image")
            for name in several(column, table) if listed else (column,):
                if name not in table.columns:
                    raise no_column(name, table, where=f"{self.where}: {key}")


def no_column(name: str, table: Table, *, where: str) -> SpecError:
    """Error for a column that a table does not have."""
    near = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
    meant = f"Did you mean '{near[0]}'? " if near else ""
    return SpecError(
        f"no column '{name}' in {table.source}.",
        where=where,
        hint=f"{meant}Columns: {', '.join(table.columns)}.",
    )


def several(name: str, table: Table) -> tuple[str, ...]:
    """Columns with choices or images: one with lists, or several with one each ("A,B,C,D")."""
    return (name,) if name in table.columns else tuple(part.strip() for part in name.split(","))


@dataclass(frozen=True)
class Example:
    """One question (or caption) with its images and its gold answers."""

    media: tuple[ImageRef, ...]
    question: str
    answers: tuple[str, ...]
    """One gold answer, or those of several annotators."""
    choices: tuple[str, ...] | None = None
    position: int | None = field(default=None, kw_only=True)
    """Position of the right choice if the answer is ambiguous, because another choice has the same text."""
    group: str | None = field(default=None, kw_only=True)
    """Shared by all examples of an image."""
    row: str = field(default="", kw_only=True)
    """File and row, for error messages."""
    fields: Mapping[str, str] = field(default_factory=dict, compare=False, kw_only=True)
    """Columns in the prompt other than question and choices, with their cells as text."""


class Reader:
    """Reads the rows of a table as examples; images are read on use."""

    def __init__(self, table: Table, layout: Layout, folder: Path | None, *, images: bool = True) -> None:
        """Args: images: whether examples have images. Raises: SpecError: the table lacks a column of the layout."""
        layout.check(table)
        self.table, self._layout, self._folder, self._images = table, layout, folder, images
        columns = dict(layout.columns.model_dump())
        choices, image = columns.pop("choices"), columns.pop("image")
        self._choices = several(choices, table) if choices else ()
        # The corners of a box are fractions of its image, so the image's size is needed even if the image is not shown.
        self._shown = several(image, table) if image and (images or layout.answer_as == "box") else ()
        self._more = layout.more()
        wanted = [name for name in columns.values() if name is not None]
        self._wanted = tuple(dict.fromkeys([*wanted, *self._shown, *self._choices, *self._more]))
        self._listed = "choices" in layout.placeholders()
        self._absent = frozenset(layout.absent)

    def cells(self, i: int) -> Row:
        """Cells of row `i` in the columns of the layout; `absent` texts become empty cells."""
        row = self.table.row(i, self._wanted)
        if not self._absent:
            return row
        return {name: None if _among(value, self._absent) else value for name, value in row.items()}

    def example(self, i: int, row: Row | None = None) -> Example:
        """Example of row `i`; `row`: its cells, if they are already read."""
        row = self.cells(i) if row is None else row
        names, where = self._layout.columns, self.table.where(i)
        options, refs = self._options(row, where), self._refs(row, i, where)
        answers, position = self._answers(row, options, refs, where)
        found = Example(
            media=refs if self._images else (),
            question=cells.text(cell(row, names.question, where)) if names.question else "",
            answers=answers,
            choices=options,
            position=position,
            group=cells.text(row.get(names.group)) or None if names.group else None,
            row=where,
            fields={name: cells.text(row.get(name)) for name in self._more},
        )
        if self._listed:
            check_letters(found)
        return found

    def column(self, name: str, rows: Sequence[int]) -> Iterator[Any]:
        """Cells of a column in some rows, or in all."""
        if len(rows) == len(self.table):
            return self.table.column(name)
        return (self.table.row(i, (name,)).get(name) for i in rows)

    def groups(self, rows: Sequence[int]) -> list[str | None]:
        """Groups of some rows; reads no other column."""
        column = self._layout.columns.group
        if column is None:
            return [None] * len(rows)
        return [cells.text(value) or None for value in self.column(column, rows)]

    def images(self, rows: Iterable[int]) -> Iterator[ImageRef]:
        """Images of some rows, row by row; reads no other column."""
        for i in rows if self._shown else ():
            yield from self._refs(self.table.row(i, self._shown), i, self.table.where(i))

    def _answers(
        self, row: Row, options: tuple[str, ...] | None, refs: tuple[ImageRef, ...], where: str
    ) -> tuple[tuple[str, ...], int | None]:
        name, form = self._layout.columns.answer, self._layout.answer_as
        value, at = cell(row, name, where), f"{where}: column '{name}'"
        if form == "box" and refs:
            return (cells.box(value, refs[0].size(), where=at),), None
        if self._choices and options is None:
            value = cells.listed(value)
        found = cells.answers(value, options, where=at, form=form)
        return found, cells.position(value, options, where=at, form=form)

    def _refs(self, row: Row, i: int, where: str) -> tuple[ImageRef, ...]:
        if not self._shown:
            return ()
        places = (self.table.home(i), self._folder)
        folders = tuple(dict.fromkeys(folder for folder in places if folder is not None))
        found: list[ImageRef] = []
        for column in self._shown:
            value = cell(row, column, where)
            if len(self._shown) == 1 or not cells.missing(value):
                found += cells.images(value, where=f"{where}: column '{column}'", folders=folders)
        return tuple(found)

    def _options(self, row: Row, where: str) -> tuple[str, ...] | None:
        if not self._choices:
            return None
        if len(self._choices) == 1:
            return cells.choices(row.get(self._choices[0]), where=f"{where}: column '{self._choices[0]}'")
        return cells.placed(row.get(name) for name in self._choices)


def cell(row: Row, column: str, where: str) -> Any:
    """A required cell. Raises InputError if the row lacks it."""
    if column not in row:
        raise InputError(f"has no '{column}'.", where=where, hint="Add it or remove the row.")
    return row[column]


def _among(value: Any, texts: frozenset[str]) -> bool:
    return isinstance(value, str) and value in texts


def check_letters(example: Example) -> None:
    """Raises InputError if an example has more choices than there are letters."""
    choices = example.choices or ()
    if len(choices) > len(LETTERS):
        raise InputError(
            f"has {len(choices)} choices, more than there are letters.",
            where=f"{example.row}: columns.choices",
            hint="Leave choices out, or take {choices} out of the prompt and choose a scorer of texts.",
        )


def check_choice(example: Example, column: str, *, why: str, more: str = "") -> None:
    """Raises InputError if an example has choices and its answer, in `column`, is not one of them.

    Args: why: reason for this requirement. more: further fixes, for the hint.
    """
    position = cells.right_choice(example.answers, example.choices, example.position)
    if example.choices is not None and position is None:
        raise InputError(
            f"answer {example.answers[0][:80]!r} is none of the {len(example.choices)} choices, and {why}.",
            where=f"{example.row}: column '{column}'",
            hint=f"Write it as it stands among the choices, its letter or its position from 0{more}.",
        )
