"""The frame of results as a file: CSV, Parquet or JSON, written piece by piece."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from moextend.bench.report.csv import words
from moextend.errors import InputError
from moextend.util import files, lookup

if TYPE_CHECKING:
    from numpy import ndarray
    from pandas import DataFrame, Series

    Column = tuple[list[str], ndarray[Any, Any]]
    """The texts of a column's distinct values, and the place of each row's text among them."""

ROWS = 1 << 14
"""Rows of text that the memory holds at once."""


def check(form: str, out: Path | None) -> None:
    """Checks what is to be written before results are read.

    Raises:
        UnknownName: no such format.  InputError: Parquet, which is no text, without a file.
    """
    lookup.choose("format of items", form, FORMATS, where="--format")
    if form == "parquet" and out is None:
        raise InputError(
            "parquet cannot be printed.", where="--format parquet", hint="Name a file: --out items.parquet."
        )


def write(pieces: Iterable[DataFrame], form: str, out: Path | IO[str]) -> None:
    """Writes the rows of frames with the same columns to a file, whole or not at all, or to a stream of text."""
    if not isinstance(out, Path):
        FORMATS[form](pieces, cast("IO[bytes]", _Encoded(out)))
        return
    with files.atomic(out) as temporary, temporary.open("wb") as file:
        FORMATS[form](pieces, file)


class _Encoded:
    """A stream of text that takes bytes."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def write(self, block: bytes) -> int:
        return self._out.write(block.decode())


def _csv(pieces: Iterable[DataFrame], out: IO[bytes]) -> None:
    """Categories as `words`, so that no spreadsheet takes an answer for a formula; numbers unrounded."""
    for number, piece in enumerate(pieces):
        if not number:
            out.write((",".join(map(str, piece)) + "\n").encode())
        *others, last = piece
        ends = {**dict.fromkeys(others, ","), last: "\n"}
        for rows in _rows([_column(piece[name], _csv_cell, "", "", ends[name]) for name in piece]):
            out.write(rows)


def _json(pieces: Iterable[DataFrame], out: IO[bytes]) -> None:
    """One array of objects, a line each; null where something is missing."""
    before = b"["
    for piece in pieces:
        first, *_, last = piece
        starts = {name: f'{"{" if name == first else ","}"{name}":' for name in piece}
        ends = {**dict.fromkeys(piece, ""), last: "},\n"}
        for rows in _rows(
            [_column(piece[name], _json_cell, "null", starts[name], ends[name]) for name in piece]
        ):
            out.write(before + rows.removesuffix(b",\n"))
            before = b",\n"
    out.write(b"[]\n" if before == b"[" else b"]\n")


def _parquet(pieces: Iterable[DataFrame], out: IO[bytes]) -> None:
    """A group of rows a piece; categories are dictionaries."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    wide, writer = pa.dictionary(pa.int32(), pa.string()), None  # pieces differ in the number of categories
    for piece in pieces:
        table = pa.Table.from_pandas(piece, preserve_index=False)
        schema = [one.with_type(wide) if pa.types.is_dictionary(one.type) else one for one in table.schema]
        table = table.cast(pa.schema(schema, table.schema.metadata))
        writer = writer or ParquetWriter(out, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


FORMATS: dict[str, Callable[[Iterable[DataFrame], IO[bytes]], None]] = {
    "csv": _csv, "parquet": _parquet, "json": _json,
}  # fmt: skip
"""Format -> what writes it."""


def _csv_cell(value: Any) -> str:
    if not isinstance(value, str):
        return repr(value)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([words(value), ""])
    return out.getvalue().removesuffix(",\n")


def _json_cell(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _column(
    values: Series[Any], text: Callable[[Any], str], missing: str, before: str, behind: str
) -> Column:
    """A column as text, with what stands before and behind each of its cells."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        places, distinct = values.cat.codes.to_numpy(), values.cat.categories
    else:
        places, distinct = pd.factorize(values)
    texts = [before + one + behind for one in (missing, *map(text, distinct.tolist()))]
    return texts, places.astype("int32") + 1


def _rows(columns: Sequence[Column]) -> Iterator[bytes]:
    """The columns side by side, some rows at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [pa.array(own, pa.string()) for own, _ in columns]
    for start in range(0, len(columns[0][1]), ROWS):
        cells = [
            own.take(pa.array(places[start : start + ROWS]))
            for own, (_, places) in zip(texts, columns, strict=True)
        ]
        joined = pc.binary_join_element_wise(*cells, "")
        _, ends, block = joined.buffers()
        yield block[: int(np.frombuffer(ends, np.int32)[len(joined)])].to_pybytes()
