"""Formats: one renderer each, over the tables of `table.py`. A new one is a function and a line in FORMATS.

Markdown is short, and here. The page (report/page) is no format of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moextend.bench.report.table import Table, Value
from moextend.errors import visible
from moextend.util import lookup


@dataclass(frozen=True)
class Format:
    """How tables become text."""

    render: str
    """`module:function` from tables to text, imported where it is used."""
    suffix: str
    """Of files."""
    for_people: bool = True
    """Whether the best values are marked, and notes say which runs are left out; other programs get numbers alone."""


FORMATS = {
    "table": Format("moextend.bench.report.formats.terminal:render", "txt"),
    "markdown": Format("moextend.bench.report.formats:markdown", "md"),
    "latex": Format("moextend.bench.report.formats.latex:render", "tex"),
    "csv": Format("moextend.bench.report.formats.csv:render", "csv", for_people=False),
}


def render(tables: Sequence[Table], form: str) -> str:
    """The tables as text of the format; UnknownName for one that does not exist."""
    to_text: Callable[[Sequence[Table]], str] = lookup.load(lookup.choose("format", form, FORMATS).render)
    return to_text(tables)


def markdown(tables: Sequence[Table]) -> str:
    """The tables one below the other, each with its footnotes as a list."""
    return "\n".join(_markdown(table.narrow()) for table in tables)


def _markdown(table: Table) -> str:
    head = [escaped(column.title) for column in table.columns]
    rules = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [
        f"| {' | '.join(cells)} |" for cells in (head, rules, *([cell(v) for v in row] for row in table.rows))
    ]
    notes = [f"- {escaped(note)}" for note in table.notes]
    return "\n".join([f"### {escaped(table.title)}", "", *lines, *(["", *notes] if notes else []), ""])


def cell(value: Value) -> str:
    """A cell of a Markdown table."""
    shown = escaped(value.text)
    return f"**{shown}**" if value.style == "bold" and shown else shown


def escaped(text: str) -> str:
    """A text as Markdown shows it."""
    # Brackets too: else a name could be a link, to a script as well.
    for character in "\\|*_<>`[]":
        text = text.replace(character, f"\\{character}")
    return visible(text.replace("\n", " "))
