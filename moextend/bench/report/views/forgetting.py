"""The forgetting table: what each method learned, what was left of it at the end, and what became of text.

Below it the spread over seeds and orders, where there are several; and the settings of a method side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from moextend.bench import methods, metrics, stats
from moextend.bench.base import Base
from moextend.bench.report.collect import (
    COMPARED,
    SIGNED,
    TITLES,
    Experiment,
    Groups,
    Result,
    base_runs,
    grouped,
    has_base_row,
    lacking_notes,
    row_name,
    run_notes,
    scale_notes,
)
from moextend.bench.report.notes import (
    backend_notes,
    change_of,
    elsewhere_notes,
    seeds_note,
    untouched_notes,
)
from moextend.bench.report.table import (
    Column,
    Row,
    Table,
    Value,
    cells_of,
    count,
    named,
    number,
    over_runs,
    plain,
    text,
    words_column,
)
from moextend.bench.report.views import Asked, costs

COLUMNS = [
    words_column("method"),
    Column("task_id", "task id", numeric=False, paper=False),
    *(Column(key, TITLES[key], paper=key in ("acc", "bwt", "text_change")) for key in COMPARED),
    *costs.SUMMARY,
    Column("text_after", TITLES["text_after"], wide=True),
    Column("runs", "runs", wide=True),
    *(Column(key, TITLES[key], wide=True) for key in ("maa", "bwt_t", "fm_max_all", "worst_case")),
    Column("intransigence", "intransigence", wide=True),
    *(Column(key, TITLES[key], wide=True) for key in ("text_before", "text_retention")),
]

NOTES = [
    "task id: what the method knows at inference of the task that an input belongs to: given with the input, "
    "inferred from it, or none.",
    "LA: learning accuracy, the mean accuracy on each task right after it was learned. ACC: mean accuracy after the "
    "last stage. BWT: backward transfer, the mean of ACC minus LA over all tasks but the last (divisor T-1). FM: "
    "forgetting measure, the mean of the best accuracy since a task was learned, last stage not counted, minus the "
    "final one (divisor T-1; positive where something was forgotten).",
    "FWT: forward transfer, the mean change of a task's score before it is learned, from the base to the stage before "
    "its own; negative where learning other tasks costs what the base could do.",
]
MAJORITY = "majority answer"
SPREAD_PARTS = ("mean", "sd", "seed", "order", "rest", "seeds", "orders")
SPREAD_COLUMNS = [words_column("method"), words_column("what"), *(Column(key, key) for key in SPREAD_PARTS)]
SPREAD = (
    "sd: standard deviation over all runs, of every seed and order. seed, order, rest: its components as standard "
    "deviations, by the two-way random-effects table (a negative estimate of a variance is 0)."
)
CROSSED = (
    "-: not every seed was run in every order, or there is one seed only: the components cannot be separated."
)
VARIANTS = (
    "Variants of one method: the settings in which they differ, all others equal. trained: parameters of the largest "
    "stage. LA, ACC, BWT and Δ text as in the summary."
)
VARIANT_METRICS = ("la", "acc", "bwt", "text_change")


def tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """The forgetting table, and the spread over seeds and orders of methods that ran in several orders."""
    return [forgetting_table(experiment), *orders_tables(experiment)]


def forgetting_table(experiment: Experiment) -> Table:
    """One row per method, below the bounds that are known."""
    groups, joint = grouped(experiment.of("sequence")), grouped(experiment.of("joint"))
    wanted = costs.reference_count(experiment)
    rows = [
        _row(group, joint.get(key) or joint.get((key[0], "given")), wanted) for key, group in groups.items()
    ]
    sections = [part for part in (_bounds(experiment, joint), rows) if part]
    sequence = experiment.shared["sequence"]
    base = "trained elsewhere"
    if own := sequence.get("base"):
        base = f"base {Base(**own).words}"
    title = f"{experiment.label}: {len(sequence['stages'])} tasks, {base}"
    if limit := sequence.get("scoring", {}).get("limit"):
        title += f", {limit} items per task"
    return Table(experiment.label, title, _columns(sections), sections, _notes(experiment, groups))


def _columns(sections: Sequence[Sequence[Row]]) -> list[Column]:
    """The columns; those of costs are wide where no run knows any."""
    own = [place for place, column in enumerate(COLUMNS) if column in costs.SUMMARY]
    if any(row[place].number is not None for rows in sections for row in rows for place in own):
        return COLUMNS
    return [replace(column, wide=column.wide or place in own) for place, column in enumerate(COLUMNS)]


def summaries(group: Sequence[Result]) -> dict[str, Value]:
    """Metric of `Result.summary` -> its cell, over the runs of a group."""
    found = [result.summary for result in group]
    cells = {name: over_runs((one[name] for one in found), signed=name in SIGNED) for name in found[0]}
    return cells | {"text_change": change_of(group, cells["text_change"]), "runs": count(len(group))}


def _row(group: Sequence[Result], joint: Sequence[Result] | None, reference: float | None) -> Row:
    cells = {
        "method": row_name(group),
        "task_id": text(group[0].facts.task_identity or "?"),
        **summaries(group),
        **costs.summary_cells(group, reference),
        "intransigence": _intransigence(group, joint or []),
    }
    return cells_of(COLUMNS, cells)


def _intransigence(group: Sequence[Result], joint: Sequence[Result]) -> Value:
    if not joint:
        return Value("-")
    rows = [result.row(result.last, group[0].tasks) for result in joint]
    upper = [metrics.mean_and_sd(column)[0] for column in zip(*rows, strict=True)]
    return over_runs([metrics.intransigence(result.matrix, upper) for result in group], signed=True)


def _bounds(experiment: Experiment, joint: Groups) -> list[Row]:
    """What stands above the methods: the answers without media, the base, all tasks at once, and each task alone."""
    rows: list[dict[str, Value]] = []
    if levels := _majority(experiment.results):
        acc = over_runs(levels) if len({*levels}) > 1 else number(levels[0])
        rows.append({"method": text(MAJORITY), "acc": acc})
    runs = base_runs(experiment)
    if runs and not has_base_row(experiment):
        acc = over_runs([metrics.average(result.row(0, result.tasks)) for result in runs])
        rows.append({"method": named(methods.named("base")), "acc": acc, "text_after": _text_before(runs)})
    for group in joint.values():
        known = summaries(group)
        shown = {name: known[name] for name in ("acc", "text_after", "text_change", "runs")}
        rows.append({"method": row_name(group), **shown, **costs.summary_cells(group)})
    for group in grouped(experiment.of("independent")).values():
        known = summaries(group)
        rows.append({"method": row_name(group), "la": known["la"], "runs": known["runs"]})
    return [cells_of(COLUMNS, row) for row in rows]


def _text_before(runs: Iterable[Result]) -> Value:
    return over_runs(metrics.average(result.text_ends[0]) for result in runs)


def _majority(results: Sequence[Result]) -> list[float]:
    """The best score without the media, mean over tasks: one per seed, which may draw the world."""
    levels: dict[int, float] = {}
    for result in results:
        found = metrics.average((result.facts.majority or {}).get(task) for task in result.tasks)
        if found is not None:
            levels.setdefault(result.config.seed, found)
    return [*levels.values()]


def _notes(experiment: Experiment, groups: Groups) -> list[str]:
    results = experiment.results
    notes = list(NOTES)
    if (before := _text_before(base_runs(experiment)).number) is not None:
        notes.append(
            f"Δ text: change of the mean score on the text tasks from the base ({before:.1f}) to the end; negative is "
            "a loss."
        )
    if any(len(group) > 1 for group in groups.values()):
        notes.append("±: standard deviation over runs.")
    if results:
        notes.append(" ".join(_bound_notes(experiment)))
        notes += [note for note in (seeds_note(experiment), _items(results)) if note]
    notes += [*costs.matched_notes(experiment), *untouched_notes(results), *scale_notes(results)]
    notes += elsewhere_notes(results)
    return [*notes, *backend_notes(results), *lacking_notes(results), *run_notes(experiment)]


def _bound_notes(experiment: Experiment) -> list[str]:
    notes = [f"{methods.named('base')}: the base before the first stage."]
    if _majority(experiment.results):
        notes.append(
            f"{MAJORITY}: the most common training answer to questions of the same form, without the media."
        )
    if experiment.of("joint"):
        notes.append("joint: all tasks learned at once (usually an upper bound).")
    if experiment.of("independent"):
        notes.append("each alone: every task learned from the base (upper bound of LA).")
    return notes


def _items(results: Sequence[Result]) -> str:
    cells = [cell for result in results for cell in result.cells.values()]
    counts, errors = sorted({c.n for c in cells}), [c.stderr for c in cells if c.stderr is not None]
    if not cells:
        return ""
    items = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    error = f", standard error over items {min(errors):.1f} to {max(errors):.1f} points" if errors else ""
    return f"One cell of the matrix: {items} items{error}."


Runs = dict[tuple[int, str], Result]
"""(seed, order) -> the run of a method."""
What = Callable[[tuple[int, str], Result], float | None]
"""Seed and order, and the run -> a number."""


def orders_tables(experiment: Experiment) -> list[Table]:
    """The components of every metric, of the methods that ran in several orders; none where no method did."""
    whats: dict[str, What] = {
        TITLES[metric]: lambda _, result, metric=metric: result.summary[metric]  # type: ignore[misc]
        for metric in COMPARED
    }
    title = f"{experiment.label}: spread over seeds and orders"
    return _spread(f"{experiment.label}-orders", title, _by_method(experiment), whats)


def difference_tables(experiment: Experiment, baseline: str) -> list[Table]:
    """Likewise of the final scores less those of the baseline's run of the same seed and order."""
    runs = _by_method(experiment)
    base = runs.pop(baseline, {})
    shared = {
        method: {key: result for key, result in own.items() if key in base} for method, own in runs.items()
    }
    title = f"{experiment.label}: final scores less those of {baseline}, spread over seeds and orders"
    whats = {what: _less(base, attrgetter(what)) for what in ("tasks", "text")}
    return _spread(f"{experiment.label}-orders-{baseline}", title, shared, whats)


def _less(base: Runs, tasks: Callable[[Result], list[str]]) -> What:
    """The mean final score of some tasks less that of the baseline's run."""

    def difference(key: tuple[int, str], mine: Result) -> float | None:
        ends = [metrics.average(one.row(one.last, tasks(one))) for one in (mine, base[key])]
        return None if ends[0] is None or ends[1] is None else ends[0] - ends[1]

    return difference


def _by_method(experiment: Experiment) -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for result in experiment.of("sequence"):
        found.setdefault(result.config.method, {})[result.config.seed, result.config.order] = result
    return found


def _spread(key: str, title: str, methods: Mapping[str, Runs], whats: Mapping[str, What]) -> list[Table]:
    rows = []
    for method, runs in methods.items():
        if len({order for _, order in runs}) < 2:
            continue
        for what, value_of in whats.items():
            values = {run: value_of(run, result) for run, result in runs.items()}
            known = {run: value for run, value in values.items() if value is not None}
            if len(known) == len(values):
                rows.append([named(method), text(what), *_values(known, signed=what not in ("LA", "ACC"))])
    if not rows:
        return []
    apart = all(row[4].number is not None for row in rows)
    return [
        Table(key, title, SPREAD_COLUMNS, [rows], [SPREAD] if apart else [SPREAD, CROSSED], kind="orders")
    ]


def _values(known: Mapping[tuple[int, str], float], *, signed: bool) -> Row:
    parts = stats.components(known)
    shown = [number(value) for value in (parts.sd, parts.seed, parts.order, parts.rest)]
    counts = [count(len({run[place] for run in known})) for place in (0, 1)]
    return [number(parts.mean, signed=signed), *shown, *counts]


def ablation_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """One table per method that ran with several settings."""
    families: dict[str, list[list[Result]]] = {}
    for (method, order), group in grouped(experiment.of("sequence")).items():
        if order == "given":
            families.setdefault(method.partition(":")[0], []).append(group)
    return [_ablation(experiment, name, groups) for name, groups in families.items() if len(groups) > 1]


def _ablation(experiment: Experiment, method: str, groups: Sequence[list[Result]]) -> Table:
    settings = [group[0].facts.settings for group in groups]
    keys = dict.fromkeys(key for known in settings for key in known)
    differ = [key for key in keys if len({setting(known.get(key)) for known in settings}) > 1]
    columns = [words_column("method"), *(words_column(f"set_{key}", key) for key in differ)]
    columns += [Column(key, TITLES[key]) for key in VARIANT_METRICS]
    columns += [plain("trained_parameters", "trained"), plain("runs")]
    rows = []
    for group, known in zip(groups, settings, strict=True):
        cells = summaries(group)
        shown = [text(setting(known.get(key))) for key in differ]
        found = [*(cells[key] for key in VARIANT_METRICS), costs.trained_parameters(group), cells["runs"]]
        rows.append([row_name(group), *shown, *found])
    notes = [VARIANTS, *untouched_notes([result for group in groups for result in group])]
    title = f"{experiment.label}: settings of {method}"
    return Table(f"{experiment.label}-{method}-ablations", title, columns, [rows], notes, kind="ablations")


def setting(value: Any) -> str:
    """A setting as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
