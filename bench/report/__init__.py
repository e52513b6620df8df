"""Run folders -> tables: what was learned, what was forgotten, in the terminal or in a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from moextend.bench.references import Reference
from moextend.bench.report.ablations import ablation_tables
from moextend.bench.report.budgets import budget_tables
from moextend.bench.report.collect import Experiment, run_notes
from moextend.bench.report.comparison import MARGIN, comparison_table, with_baseline
from moextend.bench.report.costs import costs_table
from moextend.bench.report.forgetting import forgetting_table
from moextend.bench.report.items import ItemReader
from moextend.bench.report.matrix import matrix_tables
from moextend.bench.report.orders import difference_tables, orders_tables
from moextend.bench.report.over_orders import over_orders_tables
from moextend.bench.report.published import published_tables
from moextend.bench.report.ranks import ranked
from moextend.bench.report.readings import kinds_table, readings_table
from moextend.bench.report.routing import routing_tables
from moextend.bench.report.sources import with_sources
from moextend.bench.report.style import Styling
from moextend.bench.report.table import Table
from moextend.bench.report.tasks import tasks_table, text_table, transfer_table
from moextend.bench.report.variants import rewind_tables, subsets_tables
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


View = Literal[
    "forgetting",
    "tasks",
    "text",
    "transfer",
    "ablations",
    "matrix",
    "costs",
    "comparison",
    "routing",
    "readings",
    "rewind",
    "subsets",
    "budgets",
]
"""What is shown of the results: `moextend bench report VIEW`."""
VIEWS: tuple[View, ...] = get_args(View)
EMPTY: dict[View, tuple[str, str]] = {
    "text": ("no run scores text tasks.", "Name some under 'retention' of the sequence."),
    "transfer": (
        "no run scores a task that it does not learn, other than text tasks.",
        "Name some under 'transfer' of the sequence.",
    ),
    "ablations": (
        "no method ran with several settings.",
        "Run a method with several: moextend bench run -m moextend -m moextend:layers=first.",
    ),
    "readings": (
        "no answer to an image task has readings.",
        "Readings are made with the scores of a sequence; joint and independent runs are left out.",
    ),
    "routing": (
        "no run has records of its routing.",
        "Routing is recorded while a sequence is trained; joint and independent runs are left out.",
    ),
    "rewind": (
        "no run is scored with its learned change scaled.",
        "Score the last models: moextend bench run --also rewind, with the options of the runs.",
    ),
    "subsets": (
        "no run is scored without some of its stages.",
        "Score the last models: moextend bench run --also subsets, with the options of the runs.",
    ),
    "budgets": (
        "no sequence ran with several numbers of steps and the same alignment.",
        "Run it several times: moextend bench run --steps 50 --align-steps 300; mv runs/SEQUENCE budgets/50.",
    ),
}
"""View -> what is reported where no experiment has a table of it, and the hint."""


def tables(
    experiments: Sequence[Experiment],
    view: View = "forgetting",
    *,
    baseline: str | None = None,
    margin: float = MARGIN,
    references: Sequence[Reference] = (),
    rank: bool = True,
    style: Styling | None = None,
    accuracy: float | None = None,
) -> list[Table]:
    """The tables of one view of each experiment, and below them the published ones.

    Args:
        baseline: the method that all are compared with; `comparison` needs it and leaves out experiments without runs
            of it, `budgets` takes it.
        margin: what counts as no difference, in points.
        rank: whether the best values are bold that tests can tell from the rest (ranks.ranked).
        style: how the tables look, and which methods they have.
        accuracy: of `budgets`, in percent; None: the highest that every method reaches.

    Raises:
        InputError: there is no such table, or the references do not belong to these experiments.
        UnknownName: the style names a column that a table does not have.
    """
    if style:
        experiments = style.arranged(experiments)
    if view == "comparison":
        assert baseline is not None, "the view's own argument"
        experiments = with_baseline(experiments, baseline) if experiments else experiments
    published = [
        with_sources(experiments, table)
        for table in (published_tables(experiments, references) if references else [])
    ]
    if view == "budgets":
        measured = [with_sources(experiments, one) for one in budget_tables(experiments, accuracy, baseline)]
    else:
        parts = [
            [
                with_sources([experiment], ranked(experiment, table) if rank else table)
                for table in _with_run_notes(
                    experiment,
                    [_named_apart(experiment, one) for one in _measured(experiment, view, baseline, margin)],
                )
            ]
            for experiment in experiments
        ]
        measured = [table for part in parts for table in part]
        without = [one.name for one, part in zip(experiments, parts, strict=True) if not part]
        if measured and without:
            measured[-1] = _with_notes(
                measured[-1], [f"Not in these tables: {', '.join(without)}: {EMPTY[view][0]}"]
            )
    if experiments and not measured:
        what, hint = EMPTY[view]
        raise InputError(what, where=f"report {view}", hint=hint)
    found = [*measured, *published]
    return style.styled(found) if style else found


def _with_run_notes(experiment: Experiment, tables: list[Table]) -> list[Table]:
    """The tables of an experiment, one of which names the runs that are left out or have other data."""
    notes = run_notes(experiment)
    if not tables or any(set(notes) <= set(table.notes) for table in tables):
        return tables
    return [*tables[:-1], _with_notes(tables[-1], notes)]


def _named_apart(experiment: Experiment, table: Table) -> Table:
    """The table with a key and a title that no other experiment of the same sequence gives."""
    if not experiment.is_variant:
        return table
    differs = experiment.differs if experiment.differs not in table.title else ""
    title = f"{table.title} ({differs})" if differs else table.title
    return replace(table, key=f"{table.key} [{experiment.variant}]", title=title)


def _with_notes(table: Table, notes: Sequence[str]) -> Table:
    return replace(table, notes=[*table.notes, *notes])


def _measured(experiment: Experiment, view: View, baseline: str | None, margin: float) -> list[Table]:
    several: dict[View, Callable[[Experiment], list[Table]]] = {
        "matrix": matrix_tables, "routing": routing_tables, "ablations": ablation_tables,
        "rewind": rewind_tables, "subsets": subsets_tables,
    }  # fmt: skip
    if view in several:
        return several[view](experiment)
    if view == "comparison":
        assert baseline is not None, "the view's own argument"
        reader = ItemReader()
        return [
            comparison_table(experiment, baseline, margin, reader),
            *over_orders_tables(experiment, baseline, margin, reader),
            *difference_tables(experiment, baseline),
        ]
    found: dict[View, list[Callable[[Experiment], Table | None]]] = {
        "tasks": [tasks_table], "text": [text_table], "transfer": [transfer_table], "costs": [costs_table],
        "readings": [readings_table, kinds_table], "forgetting": [forgetting_table],
    }  # fmt: skip
    shown = [table for make in found[view] if (table := make(experiment))]
    return [*shown, *orders_tables(experiment)] if view == "forgetting" else shown


def render(tables: Sequence[Table], form: str) -> str:
    """The tables as text of the format; UnknownName for one that does not exist."""
    to_text: Callable[[Sequence[Table]], str] = lookup.load(lookup.choose("format", form, FORMATS))
    return to_text(tables)
