"""Rows with named columns: read lazily from parquet and arrow, and at once from other files."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from moextend.data.digests import FileDigests
from moextend.errors import InputError, type_name
from moextend.util import hub_errors
from moextend.util.files import atomic, parse_json, sha256

Row = Mapping[str, Any]
FORMATS = {
    ".parquet": "parquet", ".arrow": "arrow", ".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".txt": "text",
}  # fmt: skip
TEXT = "text"
"""The only column of plain text."""
BLOCK = 256
"""Rows that are converted, and lie together in the copy."""
SHOWN = 16
"""Hex digits of a digest, as in `FileDigests`."""
_LOOKED_AT = 200
"""Number of rows of a JSON file that determine its columns."""


class Table(Protocol):
    """Rows that are read on access."""

    columns: tuple[str, ...]
    source: str
    """File or data set, for error messages."""

    def __len__(self) -> int: ...

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`, without columns that the row lacks."""

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column, in order."""

    def where(self, i: int) -> str:
        """File and row, for error messages."""

    def home(self, i: int) -> Path | None:
        """Folder of the file of row `i`."""


class ArrowTable:
    """Rows of a `datasets.Dataset`: memory-mapped, nothing decoded."""

    def __init__(self, dataset: Any, source: str, folder: Path | None) -> None:
        # Rows are read a cell at a time from `data`: `datasets` takes several times as long for a row.
        self.dataset = dataset if dataset._indices is None else dataset.flatten_indices()
        self.columns = tuple(dataset.column_names)
        self.source, self._folder = source, folder
        self._read: dict[str, Any] = {}
        self._labels = {
            name: feature.names for name, feature in dataset.features.items() if hasattr(feature, "int2str")
        }

    def __len__(self) -> int:
        return len(self.dataset)

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`; class labels by name."""
        try:
            return {name: self._named(name, self._cells(name)[i].as_py()) for name in columns}
        except UnicodeDecodeError as error:
            raise _not_utf8(error, self.where(i)) from error

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column, read in blocks."""
        cells = self._cells(name)
        for start in range(0, len(self), BLOCK):
            try:
                values = cells[start : start + BLOCK].to_pylist()
            except UnicodeDecodeError as error:
                raise _not_utf8(error, self.source) from error
            for value in values:
                yield self._named(name, value)

    def _cells(self, name: str) -> Any:
        if name not in self._read:
            self._read[name] = self.dataset.data.column(name)
        return self._read[name]

    def _named(self, name: str, value: Any) -> Any:
        labels = self._labels.get(name)
        return labels[value] if labels and isinstance(value, int) and value >= 0 else value

    def files(self) -> list[Path]:
        """Files with the rows on disk."""
        return [Path(file["filename"]) for file in self.dataset.cache_files]

    def holds_bytes(self, name: str) -> bool:
        """Whether every cell of an image column holds the encoded image, not only a path."""
        import pyarrow
        from pyarrow import compute

        column = self.dataset.data.column(name)
        if pyarrow.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = compute.struct_field(column, "bytes")
        binary = pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type)
        return bool(binary and column.null_count == 0)

    def where(self, i: int) -> str:
        """Source and row, counted from 1."""
        return f"{self.source}: row {i + 1}"

    def home(self, i: int) -> Path | None:
        """Folder of the data."""
        return self._folder


def _not_utf8(error: UnicodeDecodeError, where: str) -> InputError:
    """Arrow does not check that its texts are UTF-8."""
    return InputError(
        f"holds a text that is not UTF-8 ({error.reason}).", where=where, hint="Write texts as UTF-8."
    )


class ListTable:
    """Rows in memory (of JSON, CSV and text, which have no images or small ones)."""

    def __init__(
        self, rows: list[Row], places: Sequence[str], source: str, homes: Sequence[Path | None]
    ) -> None:
        self._rows, self._places, self.source, self._homes = rows, places, source, homes
        self.columns = _keys(rows[:_LOOKED_AT])

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, i: int, columns: Sequence[str]) -> Row:
        """Cells of row `i` in `columns`."""
        return {name: self._rows[i][name] for name in columns if name in self._rows[i]}

    def column(self, name: str) -> Iterator[Any]:
        """Cells of a column."""
        return (row.get(name) for row in self._rows)

    def where(self, i: int) -> str:
        """File and entry, counted from 1."""
        return self._places[i]

    def home(self, i: int) -> Path | None:
        """Folder of the file."""
        return self._homes[i]


def _keys(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for row in rows for key in row))


def read_table(files: Sequence[Path], cache: Path) -> Table:
    """Rows of files of one format, one file after the other; `cache`: folder for copies of Parquet and Arrow files.

    Raises InputError if a file cannot be read.
    """
    formats = {FORMATS.get(path.suffix.lower()) for path in files}
    kind = formats.pop()
    if kind is None or formats:
        raise InputError("unknown data format.", where=str(files[0]), hint=f"Known: {', '.join(FORMATS)}.")
    table: Table
    if kind in ("parquet", "arrow"):
        table = _arrow(kind, files, cache)
    else:
        found = [(place, row, path.parent) for path in files for place, row in _READERS[kind](path)]
        places, homes = [place for place, _, _ in found], [home for _, _, home in found]
        table = ListTable([row for _, row, _ in found], places, _together(files), homes)
    if not len(table):
        raise InputError("has no rows.", where=table.source, hint="Check the file.")
    return table


def _together(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _arrow(kind: str, files: Sequence[Path], cache: Path) -> Table:
    """Rows of files, in copies below `cache` that can be read at any row.

    A copy is found by the content of its file, never by its path and time: a file that was replaced is read again, and
    a file that was moved is not copied again.
    """
    import datasets

    where = ", ".join(map(str, files[:3]))
    with (
        hub_errors.explained(f"cannot be read as {kind}", where=where, hint="Save the file again."),
        FileDigests(cache) as known,
    ):
        copies = [_copy(path, cache / "rows", known) for path in files]
        rows = datasets.concatenate_datasets([datasets.Dataset.from_file(str(copy)) for copy in copies])
    return ArrowTable(rows, _together(files), files[0].parent)


def _copy(path: Path, folder: Path, known: FileDigests) -> Path:
    """The copy of a file, named by the digest of the file."""
    import pyarrow

    digest = known.of(path)
    copy = folder / f"{digest}.arrow"
    if copy.is_file():
        return copy
    with atomic(copy) as temporary:
        schema, blocks = _blocks(path)
        # Text by number (pandas' categories) has a dictionary a block; `datasets` reads plain text.
        plain = pyarrow.schema([_plain(field) for field in schema], schema.metadata)
        with pyarrow.ipc.new_stream(str(temporary), plain) as out:
            for block in blocks:
                out.write_batch(block if plain == schema else block.cast(plain))
        if sha256(path)[:SHOWN] != digest:
            raise InputError("was replaced while it was read.", where=str(path), hint="Repeat the command.")
    return copy


def _plain(field: Any) -> Any:
    import pyarrow

    return field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field


def _blocks(path: Path) -> tuple[Any, Iterator[Any]]:
    """The schema of a file, and its rows in blocks; memory holds a few blocks."""
    import pyarrow
    from pyarrow import parquet

    if path.suffix.lower() == ".parquet":
        file = parquet.ParquetFile(path, pre_buffer=False)
        return file.schema_arrow, file.iter_batches(BLOCK)
    source = pyarrow.OSFile(str(path))
    try:
        stream = pyarrow.ipc.open_stream(source)
        return stream.schema, iter(stream)
    except pyarrow.ArrowInvalid:
        reader = pyarrow.ipc.open_file(path)
        return reader.schema, map(reader.get_batch, range(reader.num_record_batches))


def root_cause(error: BaseException) -> str:
    """First line of the first error in a chain of errors."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    value = _json(path.read_bytes(), str(path))
    if isinstance(value, dict):
        lists = [part for part in value.values() if isinstance(part, list)]
        if len(lists) == 1:
            value = lists[0]
        elif value and all(isinstance(part, dict) for part in value.values()):
            value = [{"id": key, **part} for key, part in value.items()]
    if not isinstance(value, list):
        raise InputError("is not a list of rows.", where=str(path), hint="Write a list of objects.")
    for i, row in enumerate(value, start=1):
        yield f"{path}: entry {i}", _object(row, f"{path}: entry {i}")


def _line_rows(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open("rb") as file:
        for i, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path}:{i}", _object(_json(line, f"{path}:{i}"), f"{path}:{i}")


def _text_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Paragraphs, separated by empty lines; or the lines of a file without empty lines between two of them."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text.", where=str(path), hint="Save it as UTF-8.") from error
    parts = re.split(r"\n\s*\n", content.strip())
    if len(parts) == 1:
        parts = content.split("\n")
    full = [part.strip() for part in parts if part.strip()]
    return ((f"{path}: text {i}", {TEXT: part}) for i, part in enumerate(full, start=1))


def _csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for i, row in enumerate(csv.DictReader(file, delimiter=delimiter), start=1):
                if None in row or None in row.values():
                    raise InputError(
                        "has more or fewer cells than the header.",
                        where=f"{path}: row {i}",
                        hint="Quote cells that hold the separator.",
                    )
                yield f"{path}: row {i}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"cannot be read as CSV ({error}).", where=str(path), hint="Save it as UTF-8."
        ) from error


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    "json": _json_rows,
    "jsonl": _line_rows,
    "csv": _csv_rows,
    "text": _text_rows,
}


def _json(line: bytes, where: str) -> Any:
    return parse_json(line, where=where, hint="Correct or remove it.")


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise InputError(
            f"holds {type_name(value)}, not an object with columns.", where=where, hint="Write {...}."
        )
    return value
