"""Reads plain text files as rows: paragraphs, or lines of files without paragraphs."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moextend.errors import InputError

COLUMN = "text"
"""The only column."""


class TextTable:
    """Paragraphs of text files, separated by empty lines, or the lines of a file without empty lines.

    Memory holds only the offsets of the texts.
    """

    columns: tuple[str, ...] = (COLUMN,)

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self.source = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        self._file, self._line = array("L"), array("L")
        self._start, self._end = array("Q"), array("Q")
        for f, path in enumerate(files):
            self._index(f, path)

    def _index(self, f: int, path: Path) -> None:
        """Adds the texts of a file."""
        paragraphs = _has_paragraphs(path)
        offset, within = 0, False
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = bool(line.strip())
                if text and not (within and paragraphs):
                    self._file.append(f)
                    self._line.append(number)
                    self._start.append(offset)
                    self._end.append(offset)
                offset += len(line)
                if text:
                    self._end[-1] = offset
                within = text

    def __len__(self) -> int:
        return len(self._start)

    def row(self, i: int, columns: Sequence[str]) -> Mapping[str, Any]:
        """Text `i`, if `columns` contains the column."""
        return {name: self._read(i) for name in columns if name == COLUMN}

    def _read(self, i: int) -> str:
        with self._files[self._file[i]].open("rb") as file:
            file.seek(self._start[i])
            raw = file.read(self._end[i] - self._start[i])
        try:
            return raw.decode("utf-8-sig").replace("\r\n", "\n").strip()
        except UnicodeDecodeError as error:
            raise InputError("is not UTF-8 text.", where=self.where(i), hint="Save it as UTF-8.") from error

    def column(self, name: str) -> Iterator[Any]:
        """Texts, one at a time."""
        return (self._read(i) for i in range(len(self)))

    def where(self, i: int) -> str:
        """File and line."""
        return f"{self._files[self._file[i]]}:{self._line[i]}"

    def home(self, i: int) -> Path | None:
        """Folder of the file."""
        return self._files[self._file[i]].parent


def _has_paragraphs(path: Path) -> bool:
    """Whether a file has an empty line between two texts."""
    begun = separated = False
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                separated = begun
            elif separated:
                return True
            else:
                begun = True
    return False
