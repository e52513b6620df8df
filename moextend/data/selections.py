"""Tables that show another table differently: some of its rows, an item of each list as a row, an added column."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moextend.data.cells import text
from moextend.data.table import Row, Table
from moextend.errors import InputError, type_name


class Selection:
    """Another table, row by row; a subclass changes rows or cells."""

    def __init__(self, table: Table, more: Sequence[str] = ()) -> None:
        """Args: more: columns that the table does not have."""
        self.table, self.source = table, table.source
        self.columns: tuple[str, ...] = tuple(dict.fromkeys((*table.columns, *more)))

    def _at(self, i: int) -> int:
        """Row of the other table that row `i` is of."""
        return i

    def __len__(self) -> int:
        return len(self.table)

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`."""
        return self.table.row(self._at(i), columns)

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column, in order."""
        return (self.row(i, (name,)).get(name) for i in range(len(self)))

    def where(self, i: int) -> str:
        """File and row, for error messages."""
        return self.table.where(self._at(i))

    def home(self, i: int) -> Path | None:
        """Folder of the file of row `i`."""
        return self.table.home(self._at(i))


class Each(Selection):
    """One row per entry of the lists in some columns; cells of the other columns repeat."""

    def __init__(self, table: Table, lists: Sequence[str]) -> None:
        """Args: lists: columns of lists, of equal length within a row."""
        super().__init__(table)
        self._lists = tuple(lists)
        self._row, self._place = array("L"), array("L")
        for row, value in enumerate(table.column(self._lists[0])):
            for place in range(len(self._listed(value, row, self._lists[0]))):
                self._row.append(row)
                self._place.append(place)

    def _listed(self, value: Any, row: int, name: str) -> Sequence[Any]:
        if not isinstance(value, list | tuple):
            where = f"{self.table.where(row)}: column '{name}'"
            hint = "Remove the column from data.each."
            raise InputError(f"holds {type_name(value)}, not a list.", where=where, hint=hint)
        return value

    def __len__(self) -> int:
        return len(self._row)

    def _at(self, i: int) -> int:
        return self._row[i]

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of item `i` in `columns`."""
        found = super().row(i, columns)
        return {
            name: self._entry(name, value, i) if name in self._lists else value
            for name, value in found.items()
        }

    def _entry(self, name: str, value: Any, i: int) -> Any:
        values = self._listed(value, self._row[i], name)
        if self._place[i] >= len(values):
            raise InputError(
                f"has {len(values)} entries, fewer than '{self._lists[0]}'.",
                where=f"{self.table.where(self._row[i])}: column '{name}'",
                hint="Lists of data.each must have equal lengths in a row.",
            )
        return values[self._place[i]]

    def entry(self, i: int) -> int:
        """Position of item `i` in its row, from 0; it makes the ids of the items of a row different."""
        return self._place[i]

    def where(self, i: int) -> str:
        """File, row, and position in the row, counted from 1."""
        return f"{super().where(i)}, entry {self._place[i] + 1}"


class Matching(Selection):
    """Rows whose whole cells match, with a column for each named group ("digits/(?P<number>[0-9]+)")."""

    def __init__(self, table: Table, patterns: Mapping[str, str]) -> None:
        """Args: patterns: column -> regular expression."""
        self._patterns = {column: re.compile(pattern) for column, pattern in patterns.items()}
        self.groups = {
            group: name for name, pattern in self._patterns.items() for group in pattern.groupindex
        }
        """Named group -> the column that it is part of."""
        super().__init__(table, tuple(self.groups))
        values = enumerate(zip(*map(table.column, patterns), strict=True))
        self._rows = array("L", (i for i, found in values if all(map(self._match, patterns, found))))

    def _match(self, column: str, value: Any) -> re.Match[str] | None:
        return self._patterns[column].fullmatch(text(value))

    def __len__(self) -> int:
        return len(self._rows)

    def _at(self, i: int) -> int:
        return self._rows[i]

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`."""
        found = super().row(i, tuple(dict.fromkeys(self.groups.get(name, name) for name in columns)))
        cells = {name: found[name] for name in columns if name in found}
        for name in columns:
            if column := self.groups.get(name):
                match = self._match(column, found[column])
                cells[name] = match[name] if match else None
        return cells


class Joined(Selection):
    """A table with a column of another one, found by the id in the column `by`."""

    def __init__(self, table: Table, other: Table, *, by: str, key: str, column: str) -> None:
        """Args: key: column of the ids in the other table. column: its column that is added."""
        super().__init__(table, (column,))
        self._other, self._by, self._column = other, by, column
        self._rows = {text(name): row for row, name in enumerate(other.column(key))}

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`."""
        own = tuple(dict.fromkeys(self._by if name == self._column else name for name in columns))
        found = super().row(i, own)
        if self._column not in columns:
            return found
        name = text(found.get(self._by))
        if name not in self._rows:
            raise InputError(
                f"there is no image '{name}' in {self._other.source}.",
                where=f"{self.where(i)}: column '{self._by}'",
                hint="Check data.join of the task.",
            )
        return {**found, **self._other.row(self._rows[name], (self._column,))}

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column; of the added one the ids."""
        return self.table.column(self._by if name == self._column else name)
