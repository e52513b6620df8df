"""Conversation data (LLaVA's layout): every question with its answer becomes a row of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moextend.bench.data.items import IMAGE_MARK
from moextend.bench.data.table import ListTable, Row, Table
from moextend.errors import InputError

COLUMNS = ("conversations", "messages")
_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant", "model")
_RULES = ("system",)


class Turns(ListTable):
    """The turns of conversations as rows."""


def expand(table: Table) -> Table:
    """The table itself; of conversations one row a turn: id, image, question, answer, group."""
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        return table
    rows: list[Row] = []
    places: list[str] = []
    homes: list[Path] = []
    for i in range(len(table)):
        for row, place in _turns(table.row(i, table.columns), column, i, table.where(i)):
            rows.append(row)
            places.append(place)
            homes.append(table.home(i) or Path())
    expanded = Turns(rows, places, table.source, homes)
    others = [name for name in table.columns if name not in (column, *expanded.columns)]
    expanded.columns = (*expanded.columns, *others)
    return expanded


def _turns(entry: Row, column: str, i: int, where: str) -> Iterator[tuple[Row, str]]:
    said = [message for message in _messages(entry.get(column), where) if message[0] not in _RULES]
    if len(said) % 2 or not said:
        raise InputError(
            f"has {len(said)} messages.",
            where=where,
            mend="A conversation is questions, each with its answer.",
        )
    group = str(entry.get("id", i))
    shared = {name: value for name, value in entry.items() if name != column}
    # An entry without an image is a text-only turn: no image, and not an image that is missing.
    shared.setdefault("image", [])
    for turn, ((asks, question), (answers, answer)) in enumerate(zip(said[::2], said[1::2], strict=True)):
        place = f"{where}, turn {turn + 1}"
        if asks not in _ASKS or answers not in _ANSWERS:
            raise InputError(
                f"is said by '{asks}' and answered by '{answers}'.",
                where=place,
                mend=f"A question is by {' or '.join(_ASKS)}, an answer by {' or '.join(_ANSWERS)}.",
            )
        own = {
            "id": f"{group}-{turn}",
            "question": question.replace(IMAGE_MARK, "").strip(),
            "answer": answer.strip(),
            "group": group,
        }
        yield {**shared, **own}, place


def _messages(value: Any, where: str) -> list[tuple[str, str]]:
    """(who, what) of each message."""
    found = []
    for message in value if isinstance(value, list | tuple) else [None]:
        if not isinstance(message, Mapping):
            raise InputError(
                "holds no list of messages.", where=where, mend='Write {"from": ..., "value": ...}.'
            )
        who, what = message.get("from", message.get("role")), message.get("value", message.get("content"))
        if not isinstance(who, str) or not isinstance(what, str):
            raise InputError(
                "has a message without 'from' and 'value'.",
                where=where,
                mend="Add them (role and content do too).",
            )
        found.append((who, what))
    return found
