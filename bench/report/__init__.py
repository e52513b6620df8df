"""Run folders -> tables: what was learned, what was forgotten, in the terminal or in a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from moextend.bench.references import Reference
from moextend.bench.report.collect import Experiment
from moextend.bench.report.comparison import MARGIN, comparison_table
from moextend.bench.report.costs import costs_table
from moextend.bench.report.forgetting import forgetting_table
from moextend.bench.report.matrix import matrix_tables
from moextend.bench.report.orders import difference_tables, orders_tables
from moextend.bench.report.published import published_tables
from moextend.bench.report.readings import kinds_table, readings_table
from moextend.bench.report.routing import routing_tables
from moextend.bench.report.table import Table
from moextend.errors import InputError
from moextend.util import lookup

FORMATS = {
    "table": "moextend.bench.report.terminal:render",
    "markdown": "moextend.bench.report.markdown:render",
    "latex": "moextend.bench.report.latex:render",
    "csv": "moextend.bench.report.csv:render",
    "html": "moextend.bench.report.html:render",
}
"""Format -> what turns tables into its text."""

SUFFIX = {"table": "txt", "markdown": "md", "latex": "tex", "csv": "csv", "html": "html"}


View = Literal["forgetting", "matrix", "costs", "comparison", "routing", "readings"]


def tables(
    experiments: Sequence[Experiment],
    view: View = "forgetting",
    *,
    baseline: str | None = None,
    margin: float = MARGIN,
    references: Sequence[Reference] = (),
) -> list[Table]:
    """The tables of one view of each experiment, and below them the published ones.

    `comparison` needs the method that all are compared with; `margin` is what counts as no difference, in points.

    Raises:
        InputError: the references do not belong beside these experiments.
    """
    published = published_tables(experiments, references) if references else []
    return [*_measured(experiments, view, baseline, margin), *published]


def _measured(
    experiments: Sequence[Experiment], view: View, baseline: str | None, margin: float
) -> list[Table]:
    if view == "matrix":
        return [table for experiment in experiments for table in matrix_tables(experiment)]
    if view == "costs":
        return [costs_table(experiment) for experiment in experiments]
    if view == "readings":
        read = [table for experiment in experiments if (table := readings_table(experiment))]
        if not read:
            raise InputError(
                "no answer to an image task has readings.",
                where="--readings",
                hint="They are made with the scores of a sequence; joint and independent runs are left out.",
            )
        kinds = [table for experiment in experiments if (table := kinds_table(experiment))]
        return [*read, *kinds]
    if view == "routing":
        found = [table for experiment in experiments for table in routing_tables(experiment)]
        if not found:
            raise InputError(
                "of no run it is known how it routes.",
                where="--routing",
                hint="It is looked at while a sequence is learned; joint and independent runs are left out.",
            )
        return found
    if view == "comparison":
        assert baseline is not None, "the view's own argument"
        return [
            table
            for experiment in experiments
            for table in (
                comparison_table(experiment, baseline, margin),
                *difference_tables(experiment, baseline),
            )
        ]
    return [
        table
        for experiment in experiments
        for table in (forgetting_table(experiment), *orders_tables(experiment))
    ]


def render(tables: Sequence[Table], form: str) -> str:
    """The tables as text of the format; UnknownName for one that does not exist."""
    to_text: Callable[[Sequence[Table]], str] = lookup.load(lookup.choose("format", form, FORMATS))
    return to_text(tables)
