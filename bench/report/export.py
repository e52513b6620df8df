"""The frame of results as a file: CSV, Parquet or JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from moextend.bench.report.csv import words
from moextend.errors import InputError
from moextend.util import files, lookup

if TYPE_CHECKING:
    from pandas import DataFrame


def check(form: str, out: Path | None) -> None:
    """Checks what is to be written before results are read.

    Raises:
        UnknownName: no such format.  InputError: Parquet, which is no text, without a file.
    """
    lookup.choose("format of items", form, FORMATS, where="--format")
    if form == "parquet" and out is None:
        raise InputError(
            "Parquet is no text.", where="--format parquet", hint="Name a file: --out items.parquet."
        )


def write(results: DataFrame, form: str, out: Path | IO[str]) -> None:
    """Writes a frame to a file, whole or not at all, or to a stream of text."""
    if not isinstance(out, Path):
        FORMATS[form](results, out)
        return
    with files.atomic(out) as temporary:
        FORMATS[form](results, temporary)


def _csv(results: DataFrame, out: Path | IO[str]) -> None:
    """Categories as `words`, so that no spreadsheet takes an answer for a formula; numbers unrounded."""
    names = results.select_dtypes("category").columns
    safe = {name: results[name].cat.rename_categories(str).map(words, na_action="ignore") for name in names}
    results.assign(**safe).to_csv(out, index=False, lineterminator="\n", encoding="utf-8")


def _json(results: DataFrame, out: Path | IO[str]) -> None:
    """One array of objects; null where something is missing."""
    results.to_json(out, orient="records", force_ascii=False, double_precision=15)


def _parquet(results: DataFrame, out: Any) -> None:
    results.to_parquet(out, engine="pyarrow", index=False)


FORMATS: dict[str, Callable[[DataFrame, Any], None]] = {"csv": _csv, "parquet": _parquet, "json": _json}
"""Format -> what writes it."""
