"""Run folders -> tables: what was learnt, what was forgotten, in the terminal or in a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moextend import lookup
from moextend.bench.report.collect import Experiment
from moextend.bench.report.forgetting import forgetting_table
from moextend.bench.report.matrix import matrix_tables
from moextend.bench.report.table import Table

FORMATS = {
    "table": "moextend.bench.report.terminal:render",
    "markdown": "moextend.bench.report.markdown:render",
    "latex": "moextend.bench.report.latex:render",
    "csv": "moextend.bench.report.csv:render",
    "html": "moextend.bench.report.html:render",
}
"""Format -> what turns tables into its text."""

SUFFIX = {"table": "txt", "markdown": "md", "latex": "tex", "csv": "csv", "html": "html"}


def tables(experiments: Sequence[Experiment], *, matrix: bool = False) -> list[Table]:
    """The forgetting table of each experiment, or the matrices of its runs."""
    if matrix:
        return [table for experiment in experiments for table in matrix_tables(experiment)]
    return [forgetting_table(experiment) for experiment in experiments]


def render(tables: Sequence[Table], form: str) -> str:
    """The tables as text of the format; UnknownName for one that does not exist."""
    to_text: Callable[[Sequence[Table]], str] = lookup.load(lookup.choose("format", form, FORMATS))
    return to_text(tables)
