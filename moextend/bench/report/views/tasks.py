"""Scores task by task: after the last stage (the learned tasks, text, tasks that are only scored), and the matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from moextend.bench import methods, metrics
from moextend.bench.report.collect import (
    Experiment,
    Result,
    base_runs,
    grouped,
    row_name,
    run_notes,
    scale_notes,
)
from moextend.bench.report.notes import backend_notes, change_of, untouched_notes
from moextend.bench.report.table import (
    Column,
    Row,
    Style,
    Table,
    Value,
    named,
    number,
    over_runs,
    text,
    words_column,
)
from moextend.bench.report.views import Asked

TASKS = (
    "Score of each learned task after the last stage; mean: ACC. CSV also has each task's score right "
    "after its own stage."
)
ALONE = "each alone: every task learned from the base."
TEXT = (
    "Score of each text task after the last stage, below the base's. change: of the mean from that of the same run's "
    "base, in points; negative is a loss. CSV also has the change of each task."
)
TRANSFER = (
    "Score after the last stage of each task that is scored and never learned, below the base's. change: "
    "of the mean from that of the same run's base, in points. CSV also has the change of each task."
)
SPREAD = "±: standard deviation over runs."
TITLES = {
    "text": "what is left of text", "transfer": "tasks that are only scored", "tasks": "final scores by task",
}  # fmt: skip
MATRIX = "Row: after this stage. Dim: tasks learned later. Bold: the one just learned."
ERRORS = "±: standard error over items."

Named = tuple[Value, Sequence[Result]]
Score = Callable[[Result, str], float | None]


def tasks_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """One row per method, a column per learned task, and their mean."""
    results = experiment.results
    tasks = next((each for each in results if each.config.order == "given"), results[0]).tasks

    def cells(rows: Sequence[Named], score: Score, learned: Score | None = None) -> list[Row]:
        return [
            [
                name, *_scores(group, tasks, score),
                *(_each(group, tasks, learned) if learned else [Value()] * len(tasks)),
            ]
            for name, group in rows
        ]  # fmt: skip

    bounds = cells(_base_rows(experiment), _base) + cells(_rows(experiment, "joint"), _final)
    bounds += cells(_rows(experiment, "independent"), _learned)
    rows = cells(_rows(experiment, "sequence"), _final, _learned)
    notes = [TASKS, *([ALONE] if experiment.of("independent") else []), *scale_notes(results, tasks)]
    more = [Column(f"learned_{task}", f"{task}, learned", wide=True, of=task) for task in tasks]
    return [_table(experiment, "tasks", tasks, more, [bounds, rows], notes)]


def text_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """One row per method, a column per text task, their mean and its change; none where no text is scored."""
    notes = [TEXT, *untouched_notes(experiment.results)]
    return _changed(experiment, "text", experiment.results[0].text, notes)


def transfer_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """One row per method, a column per task that is only scored, their mean and its change; none without such tasks."""
    return _changed(experiment, "transfer", experiment.results[0].config.transfer, [TRANSFER])


def _changed(experiment: Experiment, kind: str, tasks: Sequence[str], notes: Sequence[str]) -> list[Table]:
    if not tasks:
        return []

    def cells(rows: Sequence[Named]) -> list[Row]:
        # No method is given a task here: these inputs belong to none that is learned.
        return [
            [replace(name, task_id=""), *_scores(group, tasks, _final), *_changes(group, tasks, kind)]
            for name, group in rows
        ]

    empty = [Value()] * (len(tasks) + 1)
    above = [[name, *_scores(group, tasks, _base), *empty] for name, group in _base_rows(experiment)]
    above += cells(_rows(experiment, "joint"))
    more = [Column("change", "change")]
    more += [Column(f"change_{task}", f"{task}, change", wide=True, of=task) for task in tasks]
    return [_table(experiment, kind, tasks, more, [above, cells(_rows(experiment, "sequence"))], notes)]


def _table(
    experiment: Experiment, kind: str, tasks: Sequence[str], more: Sequence[Column],
    sections: Sequence[list[Row]], notes: Sequence[str],
) -> Table:  # fmt: skip
    columns = [
        words_column("method"),
        *task_columns(tasks),
        Column("mean", "mean"),
        *more,
    ]
    several = any(value.spread is not None for section in sections for row in section for value in row)
    notes = [*notes, *([SPREAD] if several else [])]
    name = experiment.label
    shown = [section for section in sections if section]
    return Table(
        f"{name}-{kind}",
        f"{name}: {TITLES[kind]}",
        columns,
        shown,
        [*notes, *run_notes(experiment)],
        kind=kind,
    )


def task_columns(tasks: Sequence[str], spread: str = "sd") -> list[Column]:
    """A column per task."""
    return [Column(task, task, spread=spread, of=task) for task in tasks]


def _rows(experiment: Experiment, mode: str) -> list[Named]:
    return [
        (row_name(group), group)
        for (method, _), group in grouped(experiment.of(mode)).items()
        if mode != "sequence" or methods.role_of(method) != "base"
    ]


def _base_rows(experiment: Experiment) -> list[Named]:
    """The base's row: row 0 of one run per seed."""
    runs = base_runs(experiment)
    return [(named(methods.named("base")), runs)] if runs else []


def _scores(group: Sequence[Result], tasks: Sequence[str], score: Score) -> Row:
    """Of each task, and their mean."""
    means = [metrics.average(score(result, task) for task in tasks) for result in group]
    return [*_each(group, tasks, score), over_runs(means)]


def _each(group: Sequence[Result], tasks: Sequence[str], score: Score, *, signed: bool = False) -> Row:
    return [over_runs((score(result, task) for result in group), signed=signed) for task in tasks]


def _changes(group: Sequence[Result], tasks: Sequence[str], kind: str) -> Row:
    """Of the mean over tasks, and of each; a mean of text that cannot change by construction has a mark."""
    changes = [metrics.text_change(result.row(0, tasks), result.row(result.last, tasks)) for result in group]
    mean = over_runs(changes, signed=True)
    return [change_of(group, mean) if kind == "text" else mean, *_each(group, tasks, _change, signed=True)]


def _base(result: Result, task: str) -> float | None:
    return result.row(0, [task])[0]


def _final(result: Result, task: str) -> float | None:
    return result.row(result.last, [task])[0]


def _learned(result: Result, task: str) -> float | None:
    return result.row(result.tasks.index(task) + 1, [task])[0]


def _change(result: Result, task: str) -> float | None:
    before, after = _base(result, task), _final(result, task)
    return None if before is None or after is None else after - before


def matrix_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """The accuracy matrix of every run, a row per stage: the learned tasks, text, and tasks that are only scored."""
    tables = []
    for result in experiment.results:
        mark = "" if result.state == "done" else f" ({result.state})"
        name = f"{experiment.label}/{result.name}"
        tables.append(_matrix(result, result.tasks, f"{name}-tasks", f"{name}{mark}: accuracy"))
        for what, tasks in (("text", result.text), ("transfer", result.config.transfer)):
            if tasks:
                tables.append(_matrix(result, tasks, f"{name}-{what}", f"{name}{mark}: {what}"))
    return tables


def _matrix(result: Result, tasks: Sequence[str], key: str, title: str) -> Table:
    columns = [words_column("stage"), *task_columns(tasks, "se"), Column("mean", "mean")]
    rows = [_stage(result, stage, tasks) for stage in range(result.last + 1)]
    notes = [f"{MATRIX} {ERRORS}" if tasks == result.tasks else ERRORS]
    notes += [*scale_notes([result], tasks), *backend_notes([result])]
    return Table(key, title, columns, [rows], notes, kind="matrix")


def _stage(result: Result, stage: int, tasks: Sequence[str]) -> Row:
    learned = ["base", *(["all at once"] if result.config.mode == "joint" else result.tasks)][stage]
    name = named(learned, before=f"{stage} ") if learned in result.tasks else text(f"{stage} {learned}")
    cells = []
    for task in tasks:
        cell = result.cells.get((stage, task))
        shown = Value("-", style="dim") if cell is None else number(cell.value, cell.stderr)
        cells.append(replace(shown, style=shown.style or _style(result, stage, task)))
    return [name, *cells, number(metrics.average(result.row(stage, tasks)))]


def _style(result: Result, stage: int, task: str) -> Style:
    if task not in result.tasks or (result.config.mode == "joint" and stage):
        return ""
    learned_at = result.tasks.index(task) + 1
    return "bold" if stage == learned_at else "dim" if stage < learned_at else ""
