"""LLaVA's conversations: every question becomes a row, with its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moextend.data import modalities
from moextend.data.examples import SYSTEM
from moextend.data.table import ListTable, Row, Table
from moextend.errors import InputError

COLUMNS = ("conversations", "messages")
_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant", "model")
_RULES = ("system", "developer")
"""Roles of a message that opens a conversation and holds for all its turns."""


class Turns(ListTable):
    """Turns of conversations as rows."""


def _media(table: Table) -> list[str]:
    """Columns of media, which are called like their modality; there is at least one."""
    return [name for name in modalities.modality_types() if name in table.columns] or ["image"]


def expand(table: Table) -> Table:
    """The table; for conversations one row per turn, with id, media, question, answer and group."""
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        return table
    rows: list[Row] = []
    places: list[str] = []
    homes: list[Path | None] = []
    # An entry without the key `image` is a text-only turn; its image is not missing.
    empty: Row = {name: [] for name in _media(table)}
    for i in range(len(table)):
        entry = {**empty, **table.row(i, table.columns)}
        for turn, place in _turns(entry, column, i, table.where(i)):
            rows.append(turn)
            places.append(place)
            homes.append(table.home(i))
    expanded = Turns(rows, places, table.source, homes)
    others = [name for name in table.columns if name not in (column, *expanded.columns)]
    systems = [SYSTEM] if any(SYSTEM in row for row in rows) else []
    expanded.columns = tuple(dict.fromkeys((*expanded.columns, *others, *systems)))
    return expanded


def _turns(entry: Row, column: str, i: int, where: str) -> Iterator[tuple[Row, str]]:
    talk = _messages(entry.get(column), where)
    system = talk.pop(0)[1].strip() if talk and talk[0][0] in _RULES else ""
    if any(who in _RULES for who, _ in talk):
        raise InputError(
            "has a system message that does not open the conversation.",
            where=where,
            hint="Keep only one, as the first message, or make it part of a question.",
        )
    if len(talk) % 2 or not talk:
        raise InputError(
            f"has {len(talk)} messages.",
            where=where,
            hint="A conversation has questions, each followed by its answer.",
        )
    group = str(entry.get("id", i))
    shown = [name for name in modalities.modality_types() if entry.get(name) not in (None, "", [])]
    shared = {name: value for name, value in entry.items() if name != column}
    for turn, ((asks, question), (answers, answer)) in enumerate(zip(talk[::2], talk[1::2], strict=True)):
        place = f"{where}, turn {turn + 1}"
        if asks not in _ASKS or answers not in _ANSWERS:
            raise InputError(
                f"is a message of '{asks}' that is answered by '{answers}'.",
                where=place,
                hint=f"A question is from {' or '.join(_ASKS)}, an answer from {' or '.join(_ANSWERS)}.",
            )
        own = {
            "id": f"{group}-{turn}",
            "question": modalities.stripped(question, shown).strip(),
            "answer": answer.strip(),
            "group": group,
            **({SYSTEM: system} if system else {}),
        }
        yield {**shared, **own}, place


def _messages(value: Any, where: str) -> list[tuple[str, str]]:
    """(role, text) of each message."""
    found = []
    for message in value if isinstance(value, list | tuple) else [None]:
        known: Mapping[str, Any] = message if isinstance(message, Mapping) else {}
        who, what = known.get("from", known.get("role")), known.get("value", known.get("content"))
        if not isinstance(who, str) or not isinstance(what, str):
            raise InputError(
                "is not a list of messages, each with 'from' and 'value'.",
                where=where,
                hint='Write [{"from": ..., "value": ...}, ...] (or role and content).',
            )
        found.append((who, what))
    return found
