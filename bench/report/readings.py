"""Readings of the final answers besides their score: strict, normalised, likelihood, older versions of the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from moextend.bench.report.collect import Experiment, Result, grouped, row_name, scale_notes
from moextend.bench.report.table import Column, Table, Value, named, over_runs, text

READINGS = ("strict", "normalised", "likelihood")
NOTE = (
    "After the last stage. strict: the gold text as it is, or its letter. normalised: full marks, the gold after "
    "the VQA form, or its words in the answer. likelihood: the right choice is the likeliest. more: further metrics of "
    "the scorer, the same answers by its older version, and 'the form is wrong, not the answer' where normalised "
    "exceeds strict by 10 points or more: ask for shorter answers (prompt, max_new_tokens). See docs/scorers.md."
)


WRONG_FORM = 10.0
"""Points by which the normalised reading exceeds the strict one where the form of the answers is wrong."""
FORM = "the form is wrong, not the answer"


def kinds_table(experiment: Experiment) -> Table | None:
    """The final score of each kind of question; None where no cell knows kinds."""
    sections = [
        [
            [row_name(group), named(task), text(kind), value]
            for task in group[0].tasks
            for kind, value in _by_kind(group, task).items()
        ]
        for group in grouped(experiment.of("sequence")).values()
    ]
    sections = [rows for rows in sections if rows]
    if not sections:
        return None
    columns = [
        *(Column(name, name, numeric=False) for name in ("method", "task", "kind")),
        Column("score", "score"),
    ]
    name = experiment.name
    note = "After the last stage. A kind is what the task's column of kinds says of a question."
    title = f"{name}: scores by kind of question"
    return Table(f"{name}-kinds", title, columns, sections, [note], kind="kinds")


def _by_kind(group: Sequence[Result], task: str) -> dict[str, Value]:
    cells = [cell for result in group if (cell := result.cells.get((result.last, task)))]
    kinds = sorted({kind for cell in cells for kind in cell.by_kind})
    return {kind: over_runs(cell.by_kind.get(kind) for cell in cells) for kind in kinds if len(kinds) > 1}


def readings_table(experiment: Experiment) -> Table | None:
    """One row per method and image task; None where no cell has readings."""
    columns = [
        Column("method", "method", numeric=False),
        Column("task", "task", numeric=False),
        Column("scorer", "scorer", numeric=False),
        Column("score", "score"),
        *(Column(name, name) for name in READINGS),
        Column("more", "more", numeric=False),
    ]
    sections = [
        [_row(task, group) for task in _tasks(group)] for group in grouped(experiment.of("sequence")).values()
    ]
    sections = [rows for rows in sections if rows]
    if not sections:
        return None
    name = experiment.name
    title = f"{name}: readings of the answers"
    notes = [NOTE, *scale_notes(experiment.of("sequence"))]
    return Table(f"{name}-readings", title, columns, sections, notes, kind="readings")


def _tasks(group: Sequence[Result]) -> list[str]:
    """The image tasks whose final answers have readings, in the order of the sequence."""
    first = group[0]
    names = [*first.tasks, *first.config.transfer]
    return [name for name in names if any(_read(result, name) for result in group)]


def _read(result: Result, task: str) -> dict[str, float]:
    cell = result.cells.get((result.last, task))
    return cell.readings if cell else {}


def _row(task: str, group: Sequence[Result]) -> list[Value]:
    read = [_read(result, task) for result in group]
    cells = [cell for result in group if (cell := result.cells.get((result.last, task)))]
    form = [FORM] if _wrong_form(read) else []
    more = dict.fromkeys(name for one in read for name in one if name not in READINGS)
    return [
        row_name(group),
        named(task),
        text(", ".join(sorted({cell.scorer for cell in cells}))),
        over_runs(cell.value for cell in cells),
        *(over_runs(one.get(name) for one in read) for name in READINGS),
        text(
            ", ".join([*form, *(f"{name} {over_runs(one.get(name) for one in read).text}" for name in more)])
        ),
    ]


def _wrong_form(read: Sequence[dict[str, Any]]) -> bool:
    """Whether answers are right once normalised, and wrong as they are written."""
    apart = [one["normalised"] - one["strict"] for one in read if {"normalised", "strict"} <= one.keys()]
    return bool(apart) and fmean(apart) >= WRONG_FORM
