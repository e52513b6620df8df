"""Some rows of a table: those whose cells match patterns; named groups of the patterns become columns."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moextend.data import cells
from moextend.data.table import Row, Table


class Matching:
    """Rows whose whole cells match, with a column for each named group ("digits/(?P<number>[0-9]+)")."""

    def __init__(self, table: Table, patterns: Mapping[str, str]) -> None:
        """Args: patterns: column -> regular expression."""
        self.table, self.source = table, table.source
        self._patterns = {column: re.compile(pattern) for column, pattern in patterns.items()}
        self._of = {group: name for name, pattern in self._patterns.items() for group in pattern.groupindex}
        self.columns = (*table.columns, *self._of)
        columns = [table.column(column) for column in self._patterns]
        found = enumerate(zip(*columns, strict=True))
        self._rows = array("L", (i for i, values in found if self._fits(values)))

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`."""
        own = [name for name in columns if name in self._of]
        if not own:
            return self.table.row(self._rows[i], columns)
        needed = tuple(dict.fromkeys(self._of.get(name, name) for name in columns))
        found = self.table.row(self._rows[i], needed)
        groups = {name: self._group(name, found[self._of[name]]) for name in own}
        return {**{name: found[name] for name in columns if name in found}, **groups}

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column, in order."""
        source = self._of.get(name)
        at = 0
        for row, value in enumerate(self.table.column(source or name)):
            if at < len(self) and self._rows[at] == row:
                yield self._group(name, value) if source else value
                at += 1

    def where(self, i: int) -> str:
        """File and row, for error messages."""
        return self.table.where(self._rows[i])

    def home(self, i: int) -> Path | None:
        """Folder of the file of row `i`."""
        return self.table.home(self._rows[i])

    def _fits(self, values: Sequence[Any]) -> bool:
        pairs = zip(self._patterns.values(), values, strict=True)
        return all(pattern.fullmatch(cells.text(value)) for pattern, value in pairs)

    def _group(self, name: str, value: Any) -> str | None:
        found = self._patterns[self._of[name]].fullmatch(cells.text(value))
        return found[name] if found else None
