"""The accuracy matrix of every run: a row per stage, a column per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moextend.bench import metrics
from moextend.bench.report.collect import Experiment, Result, scale_notes
from moextend.bench.report.footnotes import backend_notes
from moextend.bench.report.table import WIDTH, Column, Style, Table, Value, named, number, text

NOTE = "Row: after this stage. Dim: tasks learned later. Bold: the one just learned."
SPREAD = "±: standard error over items."
NUMBERED = "Columns: the tasks by the number of their stage."


def matrix_tables(experiment: Experiment) -> list[Table]:
    """The tables of every run: the learned tasks, the text tasks, and the other image tasks that are scored."""
    tables = []
    for result in experiment.results:
        mark = "" if result.state == "done" else f" ({result.state})"
        name = f"{experiment.name}/{result.name}"
        tables.append(_table(result, result.tasks, f"{name}-tasks", f"{name}{mark}: accuracy"))
        for what, tasks in (("text", result.text), ("transfer", result.config.transfer)):
            if tasks:
                tables.append(_table(result, tasks, f"{name}-{what}", f"{name}{mark}: {what}"))
    return tables


def _table(result: Result, tasks: Sequence[str], key: str, title: str) -> Table:
    around = max(map(len, result.tasks), default=0) + len("10  mean ") + 2
    with_names = around + sum(max(len(task) + 1, len("99.9 ")) for task in tasks) <= WIDTH
    errors = around + sum(max(len(task) + 1, len("99.9 ±99.9 ")) for task in tasks) <= WIDTH
    learned = tasks == result.tasks
    columns = [Column("stage", "stage", numeric=False)]
    for place, task in enumerate(tasks, 1):
        columns.append(_column(task, task if with_names or not learned else str(place)))
    columns.append(Column("mean", "mean"))
    rows = [_row(result, stage, tasks, errors) for stage in range(result.last + 1)]
    notes = [NOTE] if learned else []
    notes += [NUMBERED] if learned and not with_names else []
    notes += [SPREAD] if errors else []
    notes = [" ".join(notes)] if notes else []
    return Table(
        key,
        title,
        columns,
        [rows],
        [*notes, *scale_notes([result], tasks), *backend_notes([result])],
        kind="matrix",
    )


def _column(task: str, title: str) -> Column:
    return Column(task, title, spread="se", of=task if title == task else "")


def _row(result: Result, stage: int, tasks: Sequence[str], errors: bool) -> list[Value]:
    learned = ["base", *(["all at once"] if result.config.mode == "joint" else result.tasks)][stage]
    name = named(learned, before=f"{stage} ") if learned in result.tasks else text(f"{stage} {learned}")
    values = [_cell(result, stage, task, errors) for task in tasks]
    return [name, *values, number(metrics.average(result.row(stage, tasks)))]


def _cell(result: Result, stage: int, task: str, with_error: bool) -> Value:
    cell = result.cells.get((stage, task))
    if cell is None:
        return Value("-", style="dim")
    shown = number(cell.value, cell.stderr if with_error else None)
    return replace(shown, spread=cell.stderr, style=_style(result, stage, task))


def _style(result: Result, stage: int, task: str) -> Style:
    if task not in result.tasks or (result.config.mode == "joint" and stage):
        return ""
    learned_at = result.tasks.index(task) + 1
    return "bold" if stage == learned_at else "dim" if stage < learned_at else ""
