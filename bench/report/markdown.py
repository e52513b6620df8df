"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.bench.report.table import Table, Value
from moextend.errors import visible


def render(tables: Sequence[Table]) -> str:
    """The tables one below the other, each with its footnotes as a list."""
    return "\n".join(_table(table.narrow()) for table in tables)


def _table(table: Table) -> str:
    rules = [":---" if not column.numeric else "---:" for column in table.columns]
    lines = [_row([_escape(column.title) for column in table.columns]), _row(rules)]
    lines += [_row([_value(value) for value in row]) for section in table.sections for row in section]
    notes = [f"- {_escape(note)}" for note in table.notes]
    return "\n".join([f"### {_escape(table.title)}", "", *lines, *(["", *notes] if notes else []), ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(value: Value) -> str:
    shown = _escape(value.text)
    return f"**{shown}**" if value.style == "bold" and shown else shown


def _escape(text: str) -> str:
    # Brackets too: else a name could be a link, to a script as well.
    for character in "\\|*_<>`[]":
        text = text.replace(character, f"\\{character}")
    return visible(text.replace("\n", " "))
