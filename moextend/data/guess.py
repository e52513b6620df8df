"""Guesses columns, splits and prompt from the names and values of data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from moextend.data.cells import text
from moextend.data.columns import Columns
from moextend.data.llava import Turns
from moextend.data.source import WHOLE
from moextend.data.table import Row, Table
from moextend.errors import InputError, UnknownName

SHORT = "<image>\n{question}\nAnswer the question using a single word or phrase."
LETTER = "<image>\n{question}\n{choices}\nAnswer with the option's letter from the given choices directly."
CAPTION = "<image>\nDescribe the image in one sentence."
BARE = "<image>\n{question}"
"""Conversation data say in their questions how to answer."""

_TRAIN = ("train", "training")
_TEST = ("test", "testmini", "validation", "val", "valid", "dev", "eval", "evaluation")
_NAMES = {
    "image": ("image", "images", "img", "picture", "photo", "image_path", "file_name", "filename"),
    "question": (
        "question",
        "questions",
        "query",
        "instruction",
        "problem",
        "statement",
        "sentence",
        "prompt",
        "input",
    ),
    "answer": (
        "answer",
        "answers",
        "label",
        "labels",
        "target",
        "ground_truth",
        "gold",
        "response",
        "output",
        "completion",
    ),
    "id": ("question_id", "questionid", "id", "qid", "uid"),
    "group": ("group", "image_id", "imageid", "img_id", "image_name", "scene_id"),
    "kind": ("kind", "question_type", "type", "question_kind", "category", "subject", "puzzle"),
    "choices": ("choices", "options", "multiple_choices"),
}
_CAPTIONS = ("caption", "captions", "description")
NEEDED = ("answer", "question")
"""Columns that data cannot do without; captions have no question, but an image."""
CAPTIONED = ("answer", "image")
"""Columns that data of captions cannot do without."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
_LONG = 6
"""Answers of more words than this, half of the time, are texts: no single word is asked for."""
_LETTERS = ("A", "B", "C", "D")
_LOOKED_AT = 500
"""Rows that a guess is made from."""
_KINDS = range(2, 51)
"""A column of kinds has as many different values."""


AnswerKind = Literal["caption", "letter", "text", "several", "word"]
"""Kinds of answers: a caption, the letter of a choice, a long text, a word by several annotators, a word."""


@dataclass(frozen=True)
class Guess:
    """The guessed layout of data."""

    columns: Columns
    prompt: str
    open_prompt: str | None
    """The prompt of a question without choices, where others have some."""
    answers: AnswerKind
    each: tuple[str, ...] | None
    """The columns of questions and answers, where every row holds several of each."""


def guess(table: Table, given: Mapping[str, str], *, where: str, needs: Sequence[str] = NEEDED) -> Guess:
    """Guesses the layout of a table. `given`: role -> column, which are kept.

    Roles that are not in `needs` may have no column.

    Raises:
        InputError: question, answer or image cannot be guessed; with the columns there are.
    """
    columns = _columns(table, given, where=where, needs=needs)
    first = [table.row(i, table.columns) for i in range(min(_LOOKED_AT, len(table)))]
    prompt, answers = _form(columns, first, bare=isinstance(table, Turns))
    return Guess(columns, prompt, _open_prompt(columns, first), answers, _each(columns, first))


def text_column(table: Table) -> str | None:
    """The column `text` of a table without questions, answers and images; None for other tables."""
    kinds = (_NAMES["question"], _NAMES["answer"], _NAMES["image"], _CAPTIONS)
    if any(_named(names, table.columns) for names in kinds) or _image_column(table, table.columns):
        return None
    return _named(("text",), table.columns)


def named_splits(splits: Sequence[str], name: str, *, where: str, hint: str) -> tuple[str | None, str | None]:
    """(training split, test split) of the data called `name`, by their names; a single split is for training.

    `hint`: the way out if no split has a known name.
    """
    train = next((split for split in _TRAIN if split in splits), None)
    test = next((split for split in _TEST if split in splits), None)
    only = WHOLE if WHOLE in splits else splits[0] if len(splits) == 1 else None
    if train is None and test is None and only is None:
        raise InputError(f"{name} has the splits {', '.join(splits)}.", where=where, hint=hint)
    return train or (only if test is None else None), test


def _open_prompt(columns: Columns, rows: Sequence[Row]) -> str | None:
    """What a question without choices is asked by, where others have some: it has no letter."""
    if columns.choices is None:
        return None
    values = [row.get(columns.choices) for row in rows if columns.choices in row]
    return _shown(SHORT, columns, None) if any(value in (None, "", "[]", []) for value in values) else None


def _each(columns: Columns, rows: Sequence[Row]) -> tuple[str, ...] | None:
    """The columns of questions and answers, where every row holds several of each."""
    if columns.question is None:
        return None
    names = (columns.question, columns.answer)
    for row in rows:
        asked, replies = (row.get(name) for name in names)
        if not (isinstance(asked, list) and isinstance(replies, list) and len(asked) == len(replies)):
            return None
    return names if rows else None


def _columns(table: Table, given: Mapping[str, str], *, where: str, needs: Sequence[str]) -> Columns:
    for key, column in given.items():
        if key not in Columns.model_fields:
            raise UnknownName("key of columns", key, Columns.model_fields, where=where)
        if column not in table.columns and key != "choices":
            raise UnknownName("column", column, table.columns, where=f"{where} ({table.source})")
    free = [column for column in table.columns if column not in given.values()]
    guessed: dict[str, str | None] = {key: _named(names, free) for key, names in _NAMES.items()}
    guessed["image"] = _image_column(table, free) or guessed["image"]
    if guessed["choices"] is None and all(letter in free for letter in _LETTERS):
        guessed["choices"] = ",".join(letter for letter in "ABCDEFGH" if letter in free)
    if guessed["question"] is None and guessed["answer"] is None:
        words = (*_CAPTIONS, "text") if needs == CAPTIONED else _CAPTIONS
        guessed["answer"] = _named(words, free)
    guessed["id"] = _kept(table, guessed["id"], _unique)
    guessed["kind"] = _kept(table, guessed["kind"], _few)
    guessed["group"] = _kept(table, guessed["group"], _repeats)
    guessed |= given
    _complete(guessed, table, where=where, needs=needs)
    return Columns.model_validate(guessed)


def _complete(guessed: Mapping[str, str | None], table: Table, *, where: str, needs: Sequence[str]) -> None:
    """InputError where a column that is needed was neither given nor guessed."""
    caption = guessed["answer"] in _CAPTIONS
    # A caption is of an image; and what looks like images is not left out in silence.
    shows = guessed["image"] is None and (caption or (needs == NEEDED and _pictures(table)))
    for key in ("image", *needs) if shows else needs:
        if guessed[key] is None and not (key == "question" and caption):
            raise InputError(
                f"which column holds the {key}? Columns of {table.source}: {', '.join(table.columns)}.",
                where=where,
                hint=f"Say it: --columns {key}=COLUMN.",
            )


def _named(names: Sequence[str], columns: Iterable[str]) -> str | None:
    """The column that bears the first of the names, whatever its case."""
    lower = {column.lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)


def _image_column(table: Table, columns: Sequence[str]) -> str | None:
    """The one column whose cells are encoded images."""
    row = table.row(0, table.columns)
    found = [column for column in columns if _encoded(row.get(column))]
    return found[0] if len(found) == 1 else None


def _pictures(table: Table) -> bool:
    """Whether a cell of the first row is an image, or names one."""
    cells = table.row(0, table.columns).values()
    return any(
        _encoded(cell) or (isinstance(cell, str) and cell.lower().endswith(_PICTURES)) for cell in cells
    )


def _encoded(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and _encoded(value[0])
    if isinstance(value, Mapping):
        return set(value) == {"bytes", "path"}
    return isinstance(value, bytes)


def _kept(table: Table, column: str | None, fits: Callable[[list[Any]], bool]) -> str | None:
    """The column, if its first values are what such a column holds."""
    if column is None:
        return None
    values = [str(value) for value in islice(table.column(column), 20 * _LOOKED_AT)]
    return column if fits(values) else None


def _unique(values: list[Any]) -> bool:
    return len(set(values)) == len(values)


def _few(values: list[Any]) -> bool:
    return len(set(values)) in _KINDS


def _repeats(values: list[Any]) -> bool:
    return 1 < len(set(values)) < len(values)


def _form(columns: Columns, rows: Sequence[Row], *, bare: bool) -> tuple[str, AnswerKind]:
    """The prompt that fits the answers, and what these are."""
    if columns.question is None:
        return CAPTION, "caption"
    # Alpaca's layout: what an instruction is to be applied to stands in a column of its own.
    more = _named(("input",), {name for row in rows for name in row})
    if columns.choices is not None:
        return _shown(LETTER, columns, more), "letter"
    answers = [row.get(columns.answer) for row in rows]
    parts = [part for answer in answers for part in (answer if isinstance(answer, list) else [answer])]
    lengths = sorted(len(_answer_text(part).split()) for part in parts)
    if lengths and lengths[len(lengths) // 2] > _LONG:
        return _shown(BARE, columns, more), "text"
    several = any(isinstance(answer, list) and len(answer) > 3 for answer in answers)
    return _shown(BARE if bare else SHORT, columns, more), "several" if several else "word"


def _answer_text(answer: Any) -> str:
    """The text of one annotator's answer."""
    return text(answer.get("answer", answer.get("text")) if isinstance(answer, Mapping) else answer)


def _shown(prompt: str, columns: Columns, more: str | None) -> str:
    """The prompt, without a mark for an image where there is none; below an instruction its input."""
    if columns.question is not None and columns.question.lower() == "instruction" and more is not None:
        prompt = prompt.replace("{question}", f"{{question}}\n{{{more}}}")
    return prompt if columns.image is not None else prompt.removeprefix("<image>\n")
