"""Joins items with images in a separate table, as in data sets with many questions about each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moextend.bench.task import Join
from moextend.data import cells
from moextend.data.table import Row, Table
from moextend.errors import InputError


class Joined:
    """A table with an additional column: the image from another table, found by the id in the column `join.by`."""

    def __init__(self, table: Table, images: Table, join: Join) -> None:
        self.columns = tuple(dict.fromkeys((*table.columns, join.image)))
        self.source = table.source
        self._table, self._images, self._by, self._image = table, images, join.by, join.image
        self._rows = {cells.text(name): row for row, name in enumerate(images.column(join.id))}

    def __len__(self) -> int:
        return len(self._table)

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`, with its image from the other table."""
        own = [name for name in columns if name != self._image]
        if len(own) == len(columns):
            return self._table.row(i, columns)
        row = self._table.row(i, tuple(dict.fromkeys((*own, self._by))))
        return {**row, self._image: self._looked_up(row.get(self._by), self.where(i))}

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column; for the image column the ids of the images."""
        return self._table.column(self._by if name == self._image else name)

    def where(self, i: int) -> str:
        """File and row, for error messages."""
        return self._table.where(i)

    def home(self, i: int) -> Path | None:
        """Folder of the file of row `i`."""
        return self._table.home(i)

    def _looked_up(self, name: Any, where: str) -> Any:
        at = self._rows.get(cells.text(name))
        if at is None:
            raise InputError(
                f"there is no image '{cells.text(name)}' in {self._images.source}.",
                where=f"{where}: column '{self._by}'",
                hint="Check data.join of the task.",
            )
        return self._images.row(at, (self._image,)).get(self._image)
