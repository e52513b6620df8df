"""Splits rows with several items, such as all questions about one image, into one row per item."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moextend.data.table import Row, Table
from moextend.errors import InputError, type_name


class Each:
    """A table with one row per entry of the lists in some columns; cells of the other columns repeat."""

    def __init__(self, table: Table, lists: Sequence[str]) -> None:
        """Args: lists: columns of lists, of equal length within a row."""
        self.columns, self.source = table.columns, table.source
        self.table, self._lists = table, tuple(lists)
        self._row, self._at = array("L"), array("L")
        for row, value in enumerate(table.column(self._lists[0])):
            for at in range(self._length(value, row, self._lists[0])):
                self._row.append(row)
                self._at.append(at)

    def _length(self, value: Any, row: int, name: str) -> int:
        if not isinstance(value, list | tuple):
            raise InputError(
                f"holds {type_name(value)}, not a list.",
                where=f"{self.table.where(row)}: column '{name}'",
                hint="Remove the column from data.each.",
            )
        return len(value)

    def __len__(self) -> int:
        return len(self._row)

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of item `i` in `columns`."""
        cells = self.table.row(self._row[i], columns)
        return {name: self._one(name, value, i) for name, value in cells.items()}

    def _one(self, name: str, value: Any, i: int) -> Any:
        if name not in self._lists:
            return value
        if self._at[i] >= self._length(value, self._row[i], name):
            raise InputError(
                f"has {len(value)} entries, fewer than '{self._lists[0]}'.",
                where=f"{self.table.where(self._row[i])}: column '{name}'",
                hint="Lists of data.each must have equal lengths in a row.",
            )
        return value[self._at[i]]

    def entry(self, i: int) -> int:
        """Position of item `i` in its row, from 0; it makes the ids of the items of a row different."""
        return self._at[i]

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column, item by item."""
        i = 0
        for row, value in enumerate(self.table.column(name)):
            while i < len(self) and self._row[i] == row:
                yield self._one(name, value, i)
                i += 1

    def where(self, i: int) -> str:
        """File, row, and position in the row, counted from 1."""
        return f"{self.table.where(self._row[i])}, entry {self._at[i] + 1}"

    def home(self, i: int) -> Path | None:
        """Folder of the file of item `i`."""
        return self.table.home(self._row[i])
