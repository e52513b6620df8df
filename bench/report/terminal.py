"""Tables for the terminal: 80 columns where spreads can go below their numbers, never more than they must."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from moextend.bench.report.table import NARROW, SPREAD, WIDTH, Table
from moextend.errors import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table as RichTable

NAME = 20
"""Width of the first column."""


def render(tables: Sequence[Table]) -> str:
    """The tables as plain text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None)
    console.width = width(tables, console)
    for part in renderables(tables):
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def renderables(tables: Sequence[Table]) -> Iterator[RenderableType]:
    """The tables, with their footnotes, as rich shows them."""
    from rich.padding import Padding
    from rich.text import Text

    for index, table in enumerate(tables):
        if index:
            yield Text("")
        yield Text(visible(table.title), style="bold")
        yield _table(table.narrow())
        for note in table.notes:
            yield Padding(Text(visible(note), style="dim"), (0, 0, 0, 2))


def width(tables: Sequence[Table], console: Console) -> int:
    """The console's width, or more if a table would else lose characters: better wrapped than cut."""
    options = console.options.update(width=10_000)
    needed = [console.measure(_table(table.narrow()), options=options).maximum for table in tables]
    return max([console.width, *needed])


def folded(name: str) -> str:
    """A long name in several lines, broken where one of its parts ends."""
    lines = [""]
    for part in re.findall(r"[^:,/ ]+[:,/ ]*", name):
        if len(lines[-1] + part) > NAME and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _table(table: Table) -> RichTable:
    """The table as rich has it; one that is too wide has its spreads below the numbers."""
    from rich.console import Console

    shown = _made(table, below=False)
    wide = Console(width=10_000)
    return shown if wide.measure(shown).maximum <= NARROW else _made(table, below=True)


def _made(table: Table, *, below: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in table.columns:
        shown.add_column(
            Text(visible(column.title)), justify="right" if column.numeric else "left", overflow="fold"
        )
    for section in table.sections:
        for row in section:
            name, *rest = row
            texts = [
                value.text.replace(f" {SPREAD}", f"\n{SPREAD}") if below else value.text for value in rest
            ]
            cells = [
                Text(visible(words), style=value.style, no_wrap=True)
                for words, value in zip(texts, rest, strict=True)
            ]
            shown.add_row(
                Text(visible(folded(name.text)), no_wrap=True),
                *cells,
                end_section=row is section[-1] and section is not table.sections[-1],
            )
    return shown
