"""Tables as CSV: numbers unrounded, all columns, a column more for each spread that is known.

The last column, `notes`, has the notes of a table in its first row, and is empty in the others: readers of CSV keep it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import chain

from moextend.bench.report.collect import Experiment, lacking_notes, run_notes
from moextend.bench.report.table import ON_TEST, Column, Table, Value
from moextend.errors import visible

NOTES = "notes"
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-|[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)
"""What may begin with a sign all the same; a dash stands for what is not known."""


def render(tables: Sequence[Table]) -> str:
    """The rows of all tables under one head, each with its table's key; a column that a table lacks is empty."""
    out = io.StringIO()
    names = [name for table in tables for column in table.columns for name in _names(column)]
    writer = csv.DictWriter(out, dict.fromkeys(["table", *names, NOTES]), lineterminator="\n")
    writer.writeheader()
    for table in tables:
        own = [name for column in table.columns for name in _names(column)]
        for number, row in enumerate(table.rows):
            parts = [_parts(column, value) for column, value in zip(table.columns, row, strict=True)]
            cells = zip(own, chain.from_iterable(parts), strict=True)
            notes = {} if number else {NOTES: words(" ".join(table.notes))}
            writer.writerow({"table": words(table.key), **dict(cells), **notes})
    return out.getvalue()


def cells(experiments: Sequence[Experiment]) -> str:
    """One line a scored cell of every run, with what it was computed from."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["stage", "task", "value", "stderr", "n", "scorer", "weights", "predictions"]
    writer.writerow(["sequence", "run", "method", "seed", "order", "mode", "state", *names, NOTES])
    for experiment in experiments:
        notes = [*run_notes(experiment), *lacking_notes(experiment.results)]
        for result in experiment.results:
            config = result.config
            settings = [config.method, config.seed, config.order, config.mode]
            run = [experiment.label, result.name, *settings, result.state]
            for _, cell in sorted(result.cells.items()):
                found, notes = [*run, *(getattr(cell, name) for name in names), " ".join(notes)], []
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
