"""Reads a user's data (a file, a folder or a hub id) as conversations and guesses its columns."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path

from moextend.data import cells
from moextend.data.conversations import Conversation, Conversations, Lazy, answer_text, prompt_text
from moextend.data.examples import Example, Layout, Reader, check_choice
from moextend.data.guess import guess, named_splits, text_column
from moextend.data.hub import hub_splits
from moextend.data.modalities import marks_in, modality_types
from moextend.data.selections import Each
from moextend.data.source import Opened, locate, open_files, open_remote, place
from moextend.data.table import TEXT as COLUMN
from moextend.data.table import Table
from moextend.errors import InputError, UnknownName


def own_data(
    data: str,
    cache: Path,
    *,
    columns: Mapping[str, str],
    template: str | None = None,
    images: Path | None = None,
) -> Lazy:
    """All rows of a user's data (file, folder, hub id) as conversations.

    Questions about one image are turns of one conversation. Plain text has no prompt: a text file, or a table with a
    column `text` and no column of questions, answers or images.

    Args:
        data: a path or a hub id. If it has several splits, the training split is read.
        cache: a folder for copies of Parquet and Arrow files.
        columns: role (a field of `Columns`, or `text`) -> column, or `null` for none; the others are guessed, but no
            modality besides given ones.
        template: the prompt, e.g. "<image> {question}"; the data then needs no column of questions, and only media with
            a mark in it are guessed.
        images: folder of images, besides the folder of the data; files elsewhere are refused.

    Raises:
        InputError: the data does not exist, or the column of the answer cannot be guessed.
    """
    where = f"data {data}"
    opened = _opened(data, cache, where)
    text = _text_column(opened.table, columns, template, where)
    if text is not None:
        return Texts(opened.table, text)
    needs = ("answer",) if template else ("answer", "question")
    marked = marks_in(template) if template else None
    found = guess(opened.table, columns, where=where, needs=needs, marked=marked)
    layout = Layout(
        found.columns, template or found.prompt, None if template else found.open_prompt, where=where
    )
    asked = found.columns.question
    if template and asked and not marked and not layout.placeholders():
        raise layout.wrong_prompt(
            f"leaves out the questions (column '{asked}'): all prompts would be the same.",
            'Example: "{question}". If that is meant: --columns question=null.',
        )
    for name in marked or ():
        if name not in found.columns.by_modality:
            raise layout.wrong_prompt(
                f"has <{name}>, but the data has no {modality_types()[name].plural}.",
                f"Take it out, or name their column: --columns {name}=COLUMN.",
            )
    table = Each(opened.table, found.each) if found.each else opened.table
    reader = Reader(table, layout, images.resolve() if images else opened.folder)
    lettered = found.answers == "letter"

    def answer(example: Example) -> str:
        if lettered:
            check_choice(example, found.columns.answer, why="the prompt asks for the letter of one")
        return answer_text(example, lettered=lettered)

    groups = reader.groups(range(len(table)))
    return Conversations(reader.example, groups, lambda example: prompt_text(layout, example), answer)


class Texts(Lazy):
    """Cells of a column as plain text, without empty cells."""

    def __init__(self, table: Table, column: str) -> None:
        """Raises InputError if all cells are empty."""
        self._table, self._column = table, column
        full = (i for i, value in enumerate(table.column(column)) if cells.text(value).strip())
        self._rows = array("Q", full)
        if not self._rows:
            raise InputError(
                "holds no text.", where=f"{table.source}: column '{column}'", hint="Name another column."
            )

    def __len__(self) -> int:
        return len(self._rows)

    def _one(self, at: int) -> Conversation:
        row = self._table.row(self._rows[at], (self._column,))
        return Conversation((("", cells.text(row[self._column])),))


def _opened(data: str, cache: Path, where: str) -> Opened:
    path = place(data, Path.cwd())
    source = locate(data, path, None, where=where)
    if source is None:
        hint = "Name a file, a folder or a hub id."
        raise InputError("no such file or folder.", where=where, hint=hint)
    splits = hub_splits(source.hub, where=where) if source.hub else list(source.splits)
    hint = "Name one of its files, or name the training split 'train'."
    train, test = named_splits(splits, source.name, where=where, hint=hint)
    split = train or test or splits[0]
    if source.hub:
        return open_remote(source.hub, split, where=where)
    return open_files(source.splits[split], source.folder, cache)


def _text_column(table: Table, columns: Mapping[str, str], template: str | None, where: str) -> str | None:
    """Column of plain text; None for data of questions and answers."""
    if COLUMN not in columns:
        return None if columns or template else text_column(table)
    if template or len(columns) > 1:
        raise InputError(
            "plain text has no prompt and no other columns.",
            where=f"{where}: text={columns[COLUMN]}",
            hint="Name the columns question and answer instead of text.",
        )
    if columns[COLUMN] not in table.columns:
        raise UnknownName("column", columns[COLUMN], table.columns, where=f"{where} ({table.source})")
    return columns[COLUMN]
