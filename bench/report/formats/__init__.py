"""Formats: one renderer each, over the tables of `table.py`. A new one is a function and a line in FORMATS.

Markdown and HTML are short, and here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from moextend.bench.report.table import Row, Table, Value
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
    "html": Format("moextend.bench.report.formats:html", "html"),
}


def render(tables: Sequence[Table], form: str) -> str:
    """The tables as text of the format; UnknownName for one that does not exist."""
    to_text: Callable[[Sequence[Table]], str] = lookup.load(lookup.choose("format", form, FORMATS).render)
    return to_text(tables)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>moextend report</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .7rem; text-align: right; white-space: nowrap; }}
th {{ border-bottom: 2px solid; }} tbody + tbody {{ border-top: 1px solid #999; }}
.word {{ text-align: left; }} .dim {{ color: #999; }} .bold {{ font-weight: 600; }}
.wrap {{ overflow-x: auto; }} ul {{ color: #666; font-size: .85rem; padding-left: 1.2rem; }}
</style></head><body>
{body}
</body></html>
"""


def markdown(tables: Sequence[Table]) -> str:
    """The tables one below the other, each with its footnotes as a list."""
    return "\n".join(_markdown(table.narrow()) for table in tables)


def _markdown(table: Table) -> str:
    head = [_escape(column.title) for column in table.columns]
    rules = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [
        f"| {' | '.join(cells)} |"
        for cells in (head, rules, *([_cell(v) for v in row] for row in table.rows))
    ]
    notes = [f"- {_escape(note)}" for note in table.notes]
    return "\n".join([f"### {_escape(table.title)}", "", *lines, *(["", *notes] if notes else []), ""])


def _cell(value: Value) -> str:
    shown = _escape(value.text)
    return f"**{shown}**" if value.style == "bold" and shown else shown


def _escape(text: str) -> str:
    # Brackets too: else a name could be a link, to a script as well.
    for character in "\\|*_<>`[]":
        text = text.replace(character, f"\\{character}")
    return visible(text.replace("\n", " "))


def html(tables: Sequence[Table]) -> str:
    """A page with all tables, all columns, and the footnotes."""
    return PAGE.format(body="\n".join(_html(table) for table in tables))


def _html(table: Table) -> str:
    words = ["" if column.numeric else "word" for column in table.columns]

    def cells(row: Row) -> str:
        styles = (f"{word} {value.style}".strip() for value, word in zip(row, words, strict=True))
        return "".join(_tag("td", value.text, style) for value, style in zip(row, styles, strict=True))

    head = "".join(_tag("th", c.title, word) for c, word in zip(table.columns, words, strict=True))
    bodies = "\n".join(
        "<tbody>" + "\n".join(f"<tr>{cells(row)}</tr>" for row in section) + "</tbody>"
        for section in table.sections
    )
    notes = "".join(_tag("li", note, "") for note in table.notes)
    return (
        f"<h2>{escape(visible(table.title))}</h2>\n<div class='wrap'><table><thead><tr>{head}</tr></thead>\n"
        f"{bodies}</table></div>\n<ul>{notes}</ul>"
    )


def _tag(name: str, text: str, style: str) -> str:
    return f"<{name}{f' class={style!r}' if style else ''}>{escape(visible(text))}</{name}>"
