"""One row of data as an example: its question, media, choices and answers."""

from __future__ import annotations

import difflib
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from moextend.data import cells, modalities
from moextend.data.cells import AnswerForm
from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.data.modalities import modality_types
from moextend.data.table import Row, Table
from moextend.data.video import FRAMES, MOST_FRAMES, with_frames
from moextend.errors import InputError, SpecError, UnknownName
from moextend.util.spec import Spec, unset

LETTERS = string.ascii_uppercase
SYSTEM = "system message"
"""Column with the system message of conversations, which `llava.expand` adds."""
OWN_PLACEHOLDERS = ("question", "choices")
"""Placeholders of a prompt that are not columns."""
CAPITALIZED = "capitalize"
"""Form of a placeholder, `{question:capitalize}`: a capital at the start and the rest in lower case."""


class Columns(Spec):
    """Name of the column for each role."""

    image: str | None = "image"
    """One column, or several with at most one image each ("image_1,image_2"). Null: no images, which is the default of
    data with another medium."""
    audio: str | None = unset(None)
    """The same for sounds."""
    video: str | None = unset(None)
    """The same for videos, of which `frames` images are taken."""
    frames: Annotated[int, Field(ge=1, le=MOST_FRAMES)] = unset(FRAMES)
    """Number of frames of each video, at equal distances."""
    media: dict[str, str] = unset({})
    """Other modalities (of plug-ins) -> the same."""
    question: str | None = "question"
    """Null for captions."""
    answer: str = "answer"
    """A string, or a list of strings (several annotators)."""
    id: str | None = None
    """Unique per item; null: the row number is the id."""
    group: str | None = None
    """Same value for all items of a medium, which are learned as one conversation with several turns."""
    kind: str | None = None
    """Kind of question, for scores by kind, and for the majority answer where questions have no common form."""
    choices: str | None = None
    """A list, several columns ("A,B,C,D"), or an object by letter or position."""

    @model_validator(mode="before")
    @classmethod
    def _no_image_unless_named(cls, values: Any) -> Any:
        """Data with another medium have images only if `image` names their column."""
        other = isinstance(values, dict) and any(values.get(key) for key in ("audio", "video", "media"))
        return {"image": None, **values} if other else values

    @field_validator("media")
    @classmethod
    def _own_keys(cls, media: dict[str, str]) -> dict[str, str]:
        """Refuses modalities that have a key of their own."""
        if own := [name for name in media if name in ("image", "audio", "video")]:
            raise ValueError(f"write columns.{own[0]} instead of columns.media.{own[0]}")
        return media

    @property
    def by_modality(self) -> dict[str, str]:
        """Modality -> its column, or several joined by commas."""
        found = {"image": self.image, "audio": self.audio, "video": self.video, **self.media}
        return {name: column for name, column in found.items() if column is not None}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that a model gets: a video is images."""
        types = modality_types()
        known = (types.get(name) for name in self.by_modality)
        found = zip(self.by_modality, known, strict=True)
        return tuple(dict.fromkeys((kind and kind.becomes) or name for name, kind in found))

    @property
    def singles(self) -> dict[str, str]:
        """Role -> its column, for the roles with one cell per row."""
        return {
            role: name
            for role in ("question", "answer", "id", "group", "kind")
            if (name := getattr(self, role))
        }


def several(name: str, columns: Iterable[str]) -> tuple[str, ...]:
    """Columns with choices or media: one with lists, or several with one each ("A,B,C,D")."""
    return (name,) if name in columns else tuple(part.strip() for part in name.split(","))


@dataclass(frozen=True)
class Layout:
    """Settings that turn rows into examples, and examples into prompts."""

    columns: Columns
    prompt: str
    """Template with marks of media (`<image>`), `{question}`, `{choices}` and other columns of the data."""
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
        for _, name, form, conversion in parts:
            if name is not None and (form not in ("", CAPITALIZED) or conversion):
                raise self.wrong_prompt(
                    f"no form '{conversion or form}' of {{{name}}}.",
                    f"The only one is {{{name}:{CAPITALIZED}}}.",
                )
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
        columns, known = self.columns, modality_types()
        for name in columns.media:
            if name not in known:
                raise UnknownName("modality", name, known, where=f"{self.where}: columns.media")
        keyed = [
            (f"columns.{'media.' * (modality in columns.media)}{modality}", several(column, table.columns))
            for modality, column in columns.by_modality.items()
        ]
        keyed += [(f"columns.{role}", (name,)) for role, name in columns.singles.items()]
        keyed += [("columns.choices", several(columns.choices, table.columns))] if columns.choices else []
        keyed += [(f"prompt {{{name}}}", (name,)) for name in self.more()]
        for key, names in keyed:
            for name in names:
                if name not in table.columns:
                    raise no_column(name, table, where=f"{self.where}: {key}")

    def template(self, choices: Sequence[str] | None) -> str:
        """Template of an example with these choices: `prompt`, or `open_prompt` if it has none."""
        return self.open_prompt if choices is None and self.open_prompt is not None else self.prompt


def no_column(name: str, table: Table, *, where: str) -> SpecError:
    """Error for a column that a table does not have."""
    near = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
    meant = f"Did you mean '{near[0]}'? " if near else ""
    return SpecError(
        f"no column '{name}' in {table.source}.",
        where=where,
        hint=f"{meant}Columns: {', '.join(table.columns)}.",
    )


@dataclass(frozen=True)
class Example:
    """One question (or caption) with its media and its gold answers."""

    media: tuple[MediaRef, ...]
    """In the order of the marks in its template."""
    question: str
    answers: tuple[str, ...]
    """One gold answer, or those of several annotators."""
    choices: tuple[str, ...] | None = None
    position: int | None = field(default=None, kw_only=True)
    """Position of the right choice if the answer is ambiguous, because another choice has the same text."""
    group: str | None = field(default=None, kw_only=True)
    """Shared by all examples of a medium."""
    system: str = field(default="", kw_only=True)
    """System message of its conversation; "": none."""
    shown: tuple[str, ...] = field(default=(), compare=False, kw_only=True)
    """Modalities of which its row has media: marks of them in its texts are of these media. Others are text."""
    row: str = field(default="", kw_only=True)
    """File and row, for error messages."""
    fields: Mapping[str, str] = field(default_factory=dict, compare=False, kw_only=True)
    """Columns in the prompt other than question and choices, with their cells as text."""


class Reader:
    """Reads the rows of a table as examples; media are read on use."""

    def __init__(self, table: Table, layout: Layout, folder: Path | None, *, media: bool = True) -> None:
        """Args: media: whether examples have media. Raises: SpecError: the table lacks a column of the layout."""
        layout.check(table)
        self.table, self._layout, self._folder, self._media = table, layout, folder, media
        columns, types = layout.columns, modality_types()
        self._choices = several(columns.choices, table.columns) if columns.choices else ()
        # The corners of a box are fractions of its image, so the image's size is needed even if the image is not shown.
        shown = columns.by_modality.items() if media or layout.answer_as == "box" else ()
        self._shown = {types[name].ref: several(column, table.columns) for name, column in shown}
        self._more = layout.more()
        own = [SYSTEM] if SYSTEM in table.columns else []
        pictured = [column for names in self._shown.values() for column in names]
        self._wanted = tuple(
            dict.fromkeys([*columns.singles.values(), *pictured, *self._choices, *self._more, *own])
        )
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
        media = self._expanded(in_order(self._layout.template(options), refs)) if self._media else ()
        shown = modalities.modalities_of([*refs, *media])
        question = cells.text(cell(row, names.question, where)) if names.question else ""
        found = Example(
            media=media,
            question=modalities.stripped(question, shown).strip()
            if modalities.marks_in(question, shown)
            else question,
            answers=answers,
            choices=options,
            position=position,
            group=cells.text(row.get(names.group)) or None if names.group else None,
            system=cells.text(row.get(SYSTEM)),
            shown=shown,
            row=where,
            fields={name: cells.text(row.get(name)) for name in self._more},
        )
        if self._listed:
            check_letters(found)
        return found

    def column(self, name: str, rows: Sequence[int]) -> Iterator[Any]:
        """Cells of a column in some rows, or in all."""
        if rows == range(len(self.table)):
            return self.table.column(name)
        return (self.table.row(i, (name,)).get(name) for i in rows)

    def groups(self, rows: Sequence[int]) -> list[str | None]:
        """Groups of some rows; reads no other column."""
        column = self._layout.columns.group
        if column is None:
            return [None] * len(rows)
        return [cells.text(value) or None for value in self.column(column, rows)]

    def media(self, rows: Iterable[int]) -> Iterator[MediaRef]:
        """Media of some rows, row by row; reads no other column."""
        wanted = tuple(column for names in self._shown.values() for column in names)
        for i in rows if self._shown else ():
            yield from self._expanded(self._refs(self.table.row(i, wanted), i, self.table.where(i)))

    def _expanded(self, refs: Iterable[MediaRef]) -> tuple[MediaRef, ...]:
        return with_frames(refs, self._layout.columns.frames)

    def _answers(
        self, row: Row, options: tuple[str, ...] | None, refs: tuple[MediaRef, ...], where: str
    ) -> tuple[tuple[str, ...], int | None]:
        name, form = self._layout.columns.answer, self._layout.answer_as
        value, at = cell(row, name, where), f"{where}: column '{name}'"
        image = next((ref for ref in refs if isinstance(ref, ImageRef)), None)
        if form == "box" and image is not None:
            return (cells.box(value, image.size(), where=at),), None
        if self._choices and options is None:
            value = cells.listed(value)
        return cells.answers(value, options, where=at, form=form)

    def _refs(self, row: Row, i: int, where: str) -> tuple[MediaRef, ...]:
        """Media of a row, modality by modality."""
        if not self._shown:
            return ()
        places = (self.table.home(i), self._folder)
        folders = tuple(dict.fromkeys(folder for folder in places if folder is not None))
        found: list[MediaRef] = []
        for kind, names in self._shown.items():
            for column in names:
                value = cell(row, column, where)
                if len(names) == 1 or not cells.missing(value):
                    found += cells.media(kind, value, where=f"{where}: column '{column}'", folders=folders)
        return tuple(found)

    def _options(self, row: Row, where: str) -> tuple[str, ...] | None:
        if not self._choices:
            return None
        if len(self._choices) == 1:
            return cells.choices(row.get(self._choices[0]), where=f"{where}: column '{self._choices[0]}'")
        return cells.placed(row.get(name) for name in self._choices)


def in_order(template: str, media: Sequence[MediaRef]) -> tuple[MediaRef, ...]:
    """Media in the order of the marks of a template; a single mark of a modality stands for all its media."""
    wanted = modalities.marks_in(template)
    left: dict[str, list[MediaRef]] = {}
    for ref in media:
        left.setdefault(ref.modality, []).append(ref)
    found: list[MediaRef] = []
    for name in wanted:
        own = left.get(name, [])
        count = len(own) if wanted.count(name) == 1 else 1
        found += own[:count]
        left[name] = own[count:]
    return (*found, *(ref for own in left.values() for ref in own))


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
            hint=f"Write it exactly as in the choices, or as its letter or its position from 0{more}.",
        )
