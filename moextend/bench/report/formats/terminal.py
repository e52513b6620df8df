"""Tables as text: as wide as they must be, or with headings wrapped and in blocks of columns for a narrow terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from moextend.bench.report.looks import explained, short_names
from moextend.bench.report.table import NARROW, SPREAD, Column, Row, Table, Value, folded_between
from moextend.errors import visible

WIDTH = 100
"""Columns of text that is not printed to a terminal."""
NAME = 20
"""Width of the first column."""
WRAPPED = (20, 16, 12)
"""Widths of columns of words that are tried where there is no room, one after the other."""
NAMING = 3
"""Largest number of columns that every block of a table begins with."""
ENDS = ":,/_-"
"""Characters that words are broken after, where there is no room; a number stays with its spread."""


def render(tables: Sequence[Table]) -> str:
    """The tables as plain text."""
    out = io.StringIO()
    print_tables(tables, Console(file=out, color_system=None))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def print_tables(tables: Sequence[Table], console: Console, width: int | None = None) -> None:
    """Prints the tables with their footnotes.

    Args:
        width: columns that there are; None: WIDTH, or more where a table would else lose characters.
    """
    most = NAME if (width or WIDTH) > NARROW else WRAPPED[1]
    tables = [_named_once(table) for table in _with_short_names([table.narrow() for table in tables], most)]
    blocks = [list(_blocks(table, width)) for table in tables]
    widest = max((block.width for parts in blocks for block in parts), default=0)
    console.width = max(width or WIDTH, widest)
    for index, (table, parts) in enumerate(zip(tables, blocks, strict=True)):
        if index:
            console.print(Text(""))
        console.print(Text(visible(table.title), style="bold"))
        for block in parts:
            console.print(_made(block))
        for note in table.notes:
            console.print(Padding(Text(visible(note), style="dim"), (0, 0, 0, 2)))


def _with_short_names(tables: Sequence[Table], most: int) -> list[Table]:
    """The tables with short names of methods where a full one would take several lines, explained in a note."""
    firsts = [row[0] for table in tables for row in table.rows]
    full = dict.fromkeys(first.of for first in firsts if first.of and first.of in first.words)
    wide = {
        first.of.partition(":")[0] for first in firsts if _text_width(first.text) > most and first.of in full
    }
    short = short_names(name for name in full if name.partition(":")[0] in wide)
    known: set[str] = set()
    found = []
    for table in tables:
        own = dict.fromkeys(row[0].of for row in table.rows)
        new = {name: short[name] for name in own if name in short and name not in known}
        known |= own.keys()
        sections = [[[row[0].renamed(short), *row[1:]] for row in section] for section in table.sections]
        found.append(replace(table, sections=sections).noted(*explained(new)))
    return found


def _named_once(table: Table) -> Table:
    """The table without the first cell of a row that repeats that of the row above."""
    sections = []
    for section in table.sections:
        above = [None, *(row[0].text for row in section)]
        pairs = zip(above, section, strict=False)
        sections.append([[Value(), *row[1:]] if row[0].text == name else row for name, row in pairs])
    return replace(table, sections=sections)


@dataclass(frozen=True)
class Layout:
    """A table with the texts of its cells, and how wide the columns are that hold them."""

    table: Table
    heads: list[str]
    rows: list[list[str]]
    columns: list[int]

    @property
    def width(self) -> int:
        """Width of the table: a space at either side, and one between columns."""
        return sum(self.columns) + len(self.columns) + 1

    def part(self, places: Sequence[int]) -> Layout:
        """Some of the columns."""
        return Layout(
            self.table.of_columns(places),
            [self.heads[i] for i in places],
            [[row[i] for i in places] for row in self.rows],
            [self.columns[i] for i in places],
        )


def _blocks(table: Table, width: int | None) -> Iterator[Layout]:
    """The table, in blocks of columns where it is too wide even with wrapped headings."""
    on_one_line = _laid_out(table, below=False)
    if on_one_line.width <= (width or NARROW):
        yield on_one_line
        return
    below = _laid_out(table, below=True)
    if width is None or below.width <= width:
        yield below
        return
    for most in WRAPPED:
        wrapped = _laid_out(table, below=True, most=most)
        if wrapped.width <= width:
            yield wrapped
            return
    measured = next((i for i, column in enumerate(table.columns) if column.numeric and column.spread), 1)
    naming = list(range(max(1, min(measured, NAMING))))
    taken = list(naming)
    for place in range(len(naming), len(table.columns)):
        if taken != naming and wrapped.part([*taken, place]).width > width:
            yield wrapped.part(taken)
            taken = list(naming)
        taken.append(place)
    yield wrapped.part(taken)


def _laid_out(table: Table, *, below: bool, most: int | None = None) -> Layout:
    """The texts of all cells: if asked for, spreads below their numbers, and headings and words (`most`) wrapped."""
    rows = [_texts(row, table.columns, below=below, most=most) for row in table.rows]
    heads = [visible(column.title) for column in table.columns]
    widths = [max([0, *(_text_width(row[i]) for row in rows)]) for i in range(len(heads))]
    if most:
        heads = ["\n".join(folded_between(head, width)) for head, width in zip(heads, widths, strict=True)]
    columns = [max(width, _text_width(head)) for head, width in zip(heads, widths, strict=True)]
    return Layout(table, heads, rows, columns)


def _texts(row: Row, columns: Sequence[Column], *, below: bool, most: int | None) -> list[str]:
    texts = ["\n".join(folded_between(visible(row[0].text), most or NAME))]
    for value, column in zip(row[1:], columns[1:], strict=True):
        words = visible(value.text)
        if most and not column.numeric:
            words = "\n".join(folded_between(words, most, ENDS))
        elif below:
            words = words.replace(f" {SPREAD}", f"\n{SPREAD}")
        texts.append(words)
    return texts


def _text_width(text: str) -> int:
    return max(map(cell_len, text.splitlines()), default=0)


def _made(layout: Layout) -> Text:
    """The table with its lines, as one text: a table of rich's takes several times as long."""
    blank, rows = " " * layout.width, iter(layout.rows)
    out = Text(f"{blank}\n", no_wrap=True)
    _add(out, layout, layout.heads, ["bold"] * len(layout.heads))
    out.append(f" {'─' * (layout.width - 2)} \n")
    for number, section in enumerate(layout.table.sections):
        out.append(f"{blank}\n" if number else "")
        for row in section:
            _add(out, layout, next(rows), ["", *(value.style for value in row[1:])])
    return out.append(blank)


def _add(out: Text, layout: Layout, texts: Sequence[str], styles: Sequence[str]) -> None:
    """Adds a row, whose cells may have several lines."""
    cells = [text.splitlines() for text in texts]
    for number in range(max(map(len, cells), default=0)):
        for place, lines in enumerate(cells):
            line = lines[number] if number < len(lines) else ""
            room = " " * (layout.columns[place] - _text_width(line))
            before, after = (room, "") if layout.table.columns[place].numeric else ("", room)
            out.append(f" {before}").append(line, styles[place]).append(after)
        out.append(" \n")
