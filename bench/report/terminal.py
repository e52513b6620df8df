"""Tables for the terminal: 80 columns where spreads can go below their numbers, never more than they must."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moextend.bench.report.table import NARROW, SPREAD, WIDTH, Table, Value
from moextend.errors import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

NAME = 20
"""Width of the first column."""


def render(tables: Sequence[Table]) -> str:
    """The tables as plain text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    print_tables(tables, Console(file=out, width=WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Prints the tables with their footnotes.

    The console becomes wider where a table would else lose characters: better wrapped than cut.
    """
    from rich.padding import Padding
    from rich.text import Text

    layouts = [Layout.of(table.narrow()) for table in tables]
    console.width = max([console.width, *(layout.width for layout in layouts)])
    for index, (table, layout) in enumerate(zip(tables, layouts, strict=True)):
        if index:
            console.print(Text(""))
        console.print(Text(visible(table.title), style="bold"))
        console.print(layout.shown())
        for note in table.notes:
            console.print(Padding(Text(visible(note), style="dim"), (0, 0, 0, 2)))


def folded(name: str) -> str:
    """A long name in several lines, broken where one of its parts ends."""
    lines = [""]
    for part in re.findall(r"[^:,/ ]+[:,/ ]*", name):
        if len(lines[-1] + part) > NAME and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


@dataclass(frozen=True)
class Layout:
    """The texts of a table's cells, and how wide the columns are that hold them."""

    table: Table
    head: list[str]
    sections: list[list[list[str]]]
    columns: list[int]

    @staticmethod
    def of(table: Table) -> Layout:
        """The layout of a table; of one that is too wide, with its spreads below the numbers."""
        layout = Layout._of(table, below=False)
        return layout if layout.width <= NARROW else Layout._of(table, below=True)

    @staticmethod
    def _of(table: Table, *, below: bool) -> Layout:
        head = [visible(column.title) for column in table.columns]
        sections = [[_texts(row, below=below) for row in section] for section in table.sections]
        rows = [head, *(row for section in sections for row in section)]
        widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
        return Layout(table, head, sections, widths)

    @property
    def width(self) -> int:
        """Of the whole table: a space at either side, and one between columns."""
        return sum(self.columns) + len(self.columns) + 1

    def shown(self) -> Text:
        """The table with its lines, as one text."""
        from rich.text import Text

        blank = " " * self.width
        out = Text(f"{blank}\n", no_wrap=True)
        self._add(out, self.head, ["bold"] * len(self.head))
        out.append(f" {'─' * (self.width - 2)} \n")
        for number, (section, rows) in enumerate(zip(self.sections, self.table.sections, strict=True)):
            if number:
                out.append(f"{blank}\n")
            for texts, row in zip(section, rows, strict=True):
                self._add(out, texts, ["", *(value.style for value in row[1:])])
        return out.append(blank)

    def _add(self, out: Text, texts: Sequence[str], styles: Sequence[str]) -> None:
        """Adds a row, whose cells may have several lines."""
        cells = [text.splitlines() for text in texts]
        for number in range(max(map(len, cells), default=0)):
            for place, lines in enumerate(cells):
                line = lines[number] if number < len(lines) else ""
                room = " " * (self.columns[place] - _width(line))
                before, after = (room, "") if self.table.columns[place].numeric else ("", room)
                out.append(f" {before}").append(line, styles[place]).append(after)
            out.append(" \n")


def _texts(row: Sequence[Value], *, below: bool) -> list[str]:
    name, *rest = row
    texts = [value.text.replace(f" {SPREAD}", f"\n{SPREAD}") if below else value.text for value in rest]
    return [visible(words) for words in (folded(name.text), *texts)]


def _width(text: str) -> int:
    """Columns of the terminal that the longest line takes."""
    from rich.cells import cell_len

    return max(map(cell_len, text.splitlines()), default=0)
