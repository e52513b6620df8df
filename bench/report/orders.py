"""Where the spread over runs comes from, when several orders were run: seeds, orders, or neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from moextend.bench import metrics, stats
from moextend.bench.report.collect import Experiment, Result
from moextend.bench.report.forgetting import summary
from moextend.bench.report.table import Column, Table, Value, named, number, text

COLUMNS = [
    Column("method", "method", numeric=False),
    Column("what", "what", numeric=False),
    Column("mean", "mean"),
    Column("sd", "sd"),
    Column("seed", "seed"),
    Column("order", "order"),
    Column("rest", "rest"),
    Column("seeds", "seeds"),
    Column("orders", "orders"),
]

NOTE = (
    "sd: standard deviation over all runs, of every seed and order. seed, order, rest: its components as standard "
    "deviations, by the two-way random-effects table (a negative estimate of a variance is 0)."
)
CROSSED = (
    "-: not every seed was run in every order, or there is one seed only: the components cannot be separated."
)

Runs = dict[tuple[int, str], Result]
"""(seed, order) -> the run of a method."""

METRICS = {
    "LA": "la", "ACC": "acc", "BWT": "bwt", "FM": "fm", "FWT": "fwt", "Δ text": "text_change",
}  # fmt: skip
"""Metrics as they are called in the forgetting table -> in `summary`."""


def orders_tables(experiment: Experiment) -> list[Table]:
    """The components of every metric, of the methods that ran in several orders; none where no method did."""
    found = [
        (method, what, {key: summary(result)[metric] for key, result in runs.items()})
        for method, runs in _by_method(experiment).items()
        if _several(runs)
        for what, metric in METRICS.items()
    ]
    return _tables(f"{experiment.name}-orders", f"{experiment.name}: spread over seeds and orders", found)


def difference_tables(experiment: Experiment, baseline: str) -> list[Table]:
    """Likewise of the final scores less those of the baseline's run of the same seed and order."""
    methods = _by_method(experiment)
    base = methods.get(baseline, {})
    found = [
        (method, what, {key: _less(result, base[key], tasks) for key, result in runs.items() if key in base})
        for method, runs in methods.items()
        if method != baseline and _several(runs.keys() & base.keys())
        for what, tasks in (("tasks", attrgetter("tasks")), ("text", attrgetter("text")))
    ]
    title = f"{experiment.name}: final scores less those of {baseline}, spread over seeds and orders"
    return _tables(f"{experiment.name}-orders-{baseline}", title, found)


def _by_method(experiment: Experiment) -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for result in experiment.of("sequence"):
        config = result.config
        found.setdefault(config.method, {})[config.seed, config.order] = result
    return found


def _several(keys: Mapping[tuple[int, str], Result] | set[tuple[int, str]]) -> bool:
    return len({order for _, order in keys}) > 1


def _tables(
    key: str, title: str, found: Sequence[tuple[str, str, Mapping[tuple[int, str], float | None]]]
) -> list[Table]:
    rows: list[list[Value]] = []
    for method, what, values in found:
        known = {run: value for run, value in values.items() if value is not None}
        if len(known) == len(values):
            rows.append(
                [named(method), text(what), *_values(known, signed=what in ("BWT", "FM", "FWT", "Δ text"))]
            )
    if not rows:
        return []
    apart = all(row[4].number is not None for row in rows)
    notes = [NOTE, *([] if apart else [CROSSED])]
    return [Table(key, title, COLUMNS, [rows], notes, kind="orders")]


def _values(known: Mapping[tuple[int, str], float], *, signed: bool) -> list[Value]:
    parts = stats.components(known)
    seeds, orders = ({run[place] for run in known} for place in (0, 1))
    shown = [number(value) for value in (parts.sd, parts.seed, parts.order, parts.rest)]
    counts = [Value(str(len(part)), len(part)) for part in (seeds, orders)]
    return [number(parts.mean, signed=signed), *shown, *counts]


def _less(mine: Result, theirs: Result, tasks: Callable[[Result], list[str]]) -> float | None:
    a = metrics.average(mine.row(mine.last, tasks(mine)))
    b = metrics.average(theirs.row(theirs.last, tasks(theirs)))
    return None if a is None or b is None else a - b
