"""Final scores task by task: the learned tasks, what is left of text (Table 2 of the MoExtend paper), and tasks that
are only scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from moextend.bench import methods, metrics
from moextend.bench.report.collect import (
    Experiment,
    Result,
    base_runs,
    grouped,
    row_name,
    run_notes,
    scale_notes,
    unfinished_mark,
)
from moextend.bench.report.footnotes import UNTOUCHED, media_of
from moextend.bench.report.forgetting import text_untouched
from moextend.bench.report.table import WIDTH, Column, Table, Value, named, over_runs

TASKS = (
    "Score of each learned task after the last stage; mean: ACC. CSV and HTML also have each task's score right "
    "after its own stage."
)
ALONE = "each alone: every task learned from the base."
TEXT = (
    "Score of each text task after the last stage, below the base's. change: of the mean from that of the same run's "
    "base, in points; negative is a loss. CSV and HTML also have the change of each task."
)
TRANSFER = (
    "Score after the last stage of each task that is scored and never learned, below the base's. change: "
    "of the mean from that of the same run's base, in points. CSV and HTML also have the change of each task."
)
SPREAD = "±: standard deviation over runs."

Part = Literal["tasks", "text", "transfer"]
TITLES = {
    "text": "what is left of text", "transfer": "tasks that are only scored", "tasks": "final scores by task",
}  # fmt: skip

Row = tuple[Value, Sequence[Result]]
Score = Callable[[Result, str], float | None]


def tasks_table(experiment: Experiment) -> Table:
    """One row per method, a column per learned task, and their mean."""
    results = experiment.results
    tasks = next((each for each in results if each.config.order == "given"), results[0]).tasks

    def cells(rows: Sequence[Row], score: Score, learned: Score | None) -> list[list[Value]]:
        return [
            [name, *_scores(group, tasks, score), *_learned_scores(group, tasks, learned)]
            for name, group in rows
        ]

    bounds = cells(_base_rows(experiment), _base, None) + cells(_rows(experiment, "joint"), _final, None)
    bounds += cells(_rows(experiment, "independent"), _learned, None)
    rows = cells(_rows(experiment, "sequence"), _final, _learned)
    notes = [TASKS, *([ALONE] if experiment.of("independent") else []), *scale_notes(results, tasks)]
    more = [Column(f"learned_{task}", f"{task}, learned", wide=True, of=task) for task in tasks]
    return _table(experiment, "tasks", tasks, more, [bounds, rows], notes)


def text_table(experiment: Experiment) -> Table | None:
    """One row per method, a column per text task, their mean and its change; None where no text is scored."""
    untouched = any(map(text_untouched, experiment.results))
    notes = [TEXT, *([media_of(experiment.results).by_construction] if untouched else [])]
    return _changed(experiment, "text", experiment.results[0].text, notes)


def transfer_table(experiment: Experiment) -> Table | None:
    """One row per method, a column per task that is only scored, their mean and its change; None without such tasks."""
    return _changed(experiment, "transfer", experiment.results[0].config.transfer, [TRANSFER])


def _changed(experiment: Experiment, kind: Part, tasks: Sequence[str], notes: Sequence[str]) -> Table | None:
    """One row per method, a column per task, their mean and its change."""
    if not tasks:
        return None

    def cells(rows: Sequence[Row]) -> list[list[Value]]:
        return [
            # No method is given a task here: these inputs belong to none that is learned.
            [
                replace(name, task_id=""),
                *_scores(group, tasks, _final),
                *_changes(group, tasks, marks=kind == "text"),
            ]
            for name, group in rows
        ]

    above = [
        [name, *_scores(group, tasks, _base), *[Value()] * (len(tasks) + 1)]
        for name, group in _base_rows(experiment)
    ]
    above += cells(_rows(experiment, "joint"))
    more = [Column("change", "change")]
    more += [Column(f"change_{task}", f"{task}, change", wide=True, of=task) for task in tasks]
    return _table(experiment, kind, tasks, more, [above, cells(_rows(experiment, "sequence"))], notes)


def _table(
    experiment: Experiment, kind: Part, tasks: Sequence[str], more: Sequence[Column],
    sections: Sequence[list[list[Value]]], notes: Sequence[str],
) -> Table:  # fmt: skip
    longest = max(len(row[0].text) for section in sections for row in section)
    with_names = min(longest, 20) + sum(max(len(task), len("99.9")) + 1 for task in tasks) + 16 <= WIDTH
    columns = [Column("method", "method", numeric=False)]
    for place, task in enumerate(tasks, 1):
        columns.append(Column(task, task if with_names else str(place), of=task if with_names else ""))
    numbered = [f"Columns: {', '.join(f'{place} {task}' for place, task in enumerate(tasks, 1))}."]
    several = any(value.spread is not None for section in sections for row in section for value in row)
    notes = [*([] if with_names else numbered), *notes, *([SPREAD] if several else [])]
    notes += run_notes(experiment)
    name, differs = experiment.name, f" ({experiment.differs})" if experiment.differs else ""
    title = f"{name}: {TITLES[kind]}{differs}"
    shown = [section for section in sections if section]
    columns += [Column("mean", "mean"), *more]
    return Table(f"{name}-{kind}", title, columns, shown, notes, kind=kind)


def _rows(experiment: Experiment, mode: str) -> list[Row]:
    before = {"joint": "joint, ", "independent": "each alone, "}.get(mode, "")
    return [
        (row_name(group, before=before, mark=unfinished_mark(group)), group)
        for (method, _), group in grouped(experiment.of(mode)).items()
        if mode != "sequence" or methods.role_of(method) != "base"
    ]


def _base_rows(experiment: Experiment) -> list[Row]:
    """The base's row: row 0 of one run per seed."""
    runs = base_runs(experiment)
    return [(named(methods.named("base")), runs)] if runs else []


def _scores(group: Sequence[Result], tasks: Sequence[str], score: Score) -> list[Value]:
    """Of each task, and their mean."""
    each = [over_runs(score(result, task) for result in group) for task in tasks]
    return [*each, over_runs(metrics.average(score(result, task) for task in tasks) for result in group)]


def _learned_scores(group: Sequence[Result], tasks: Sequence[str], score: Score | None) -> list[Value]:
    if score is None:
        return [Value()] * len(tasks)
    return [over_runs(score(result, task) for result in group) for task in tasks]


def _changes(group: Sequence[Result], tasks: Sequence[str], *, marks: bool) -> list[Value]:
    """Of the mean over tasks, and of each; `marks`: a mean that cannot change by construction has a mark."""
    mean = over_runs(
        (metrics.text_change(result.row(0, tasks), result.row(result.last, tasks)) for result in group),
        signed=True,
    )
    untouched = marks and mean.number is not None and all(map(text_untouched, group))
    return [
        mean.marked(UNTOUCHED if untouched else ""),
        *(over_runs((_change(result, task) for result in group), signed=True) for task in tasks),
    ]


def _base(result: Result, task: str) -> float | None:
    return result.row(0, [task])[0]


def _final(result: Result, task: str) -> float | None:
    return result.row(result.last, [task])[0]


def _learned(result: Result, task: str) -> float | None:
    return result.row(result.tasks.index(task) + 1, [task])[0]


def _change(result: Result, task: str) -> float | None:
    before, after = _base(result, task), _final(result, task)
    return None if before is None or after is None else after - before
