"""Tables as CSV: numbers unrounded, all columns, a column more for each spread that is known."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import chain

from moextend.bench.report.collect import Experiment
from moextend.bench.report.sources import ON_TEST
from moextend.bench.report.table import Column, Table, Value
from moextend.errors import visible

_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-|[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)
"""What may begin with a sign all the same; a dash stands for what is not known."""


def render(tables: Sequence[Table]) -> str:
    """The rows of all tables, each with its table's key; a blank line and a new head where columns change."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    before: list[Column] | None = None
    for table in tables:
        if table.columns != before:
            if before is not None:
                out.write("\n")
            writer.writerow(["table", *(name for column in table.columns for name in _names(column))])
            before = table.columns
        for section in table.sections:
            for row in section:
                parts = [_parts(column, value) for column, value in zip(table.columns, row, strict=True)]
                writer.writerow([words(table.key), *chain.from_iterable(parts)])
    return out.getvalue()


def cells(experiments: Sequence[Experiment]) -> str:
    """One line a scored cell of every run, with what it was computed from."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["stage", "task", "value", "stderr", "n", "scorer", "weights", "predictions"]
    writer.writerow(["sequence", "run", "method", "seed", "order", "mode", "state", *names])
    for experiment in experiments:
        for result in experiment.results:
            config = result.config
            run = [
                experiment.name,
                result.name,
                config.method,
                config.seed,
                config.order,
                config.mode,
                result.state,
            ]
            for _, cell in sorted(result.cells.items()):
                found = [*run, *(getattr(cell, name) for name in names)]
                writer.writerow([words(one) if isinstance(one, str) else one for one in found])
    return out.getvalue()


def words(text: str) -> str:
    """A cell of words that no spreadsheet takes for a formula: what begins like one gets an apostrophe."""
    formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return visible(f"'{text}" if formula else text)


def _names(column: Column) -> list[str]:
    if not column.machines:
        return []
    return [column.key, f"{column.key}_{column.spread}"] if _has_spread(column) else [column.key]


def _parts(column: Column, value: Value) -> list[str | float | None]:
    if not column.machines:
        return []
    if _has_spread(column):
        return [value.number, value.spread]
    return [value.number if column.numeric else words(value.text.removesuffix(ON_TEST))]


def _has_spread(column: Column) -> bool:
    return column.numeric and bool(column.spread)
