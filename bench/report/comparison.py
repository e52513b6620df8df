"""Every method against a baseline, item by item: what the difference is, and whether the items can tell."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from moextend import files
from moextend.bench import metrics, stats
from moextend.bench.report.collect import Experiment, Result, grouped
from moextend.bench.report.table import Column, Table, Value, number, text
from moextend.bench.vqa import Record, read_scores
from moextend.errors import UnknownName

COLUMNS = [
    Column("method", "method", numeric=False),
    Column("scores", "scores", numeric=False),
    Column("difference", "difference", spread="se"),
    Column("interval", "95%", numeric=False),
    Column("p", "p"),
    Column("verdict", "verdict", numeric=False),
    Column("seeds", "over runs"),
    Column("items", "items"),
    Column("resolves", "resolves", wide=True),
]
MATTERS = 1.0
"""Points: the smallest difference that would count."""

NOTE = (
    "tasks: the learnt tasks after the last stage, mean over tasks; text: the text tasks. The same items are "
    "compared, items of one image (and one item in several runs) drawn together: 95% percentile bootstrap, p by "
    "exchanging whole clusters, corrected for the number of rows (Holm). higher, lower: p < 0.05. same: not, "
    f"though a difference of {MATTERS:g} point would have been found with 80% power. underpowered: not, and that "
    "would have taken so many items. over runs: mean ± standard deviation of the difference over runs of the same "
    "seed; the items say nothing of it."
)

Scored = dict[str, tuple[float, Hashable]]
"""Item -> (score 0..100, what it shares with others)."""


def comparison_table(experiment: Experiment, baseline: str) -> Table:
    """The final scores of every method less those of `baseline`, on the learnt tasks and on text."""
    groups = grouped(experiment.of("sequence"))
    base = {key: group for key, group in groups.items() if key[0] == baseline}
    if not base:
        known = list(dict.fromkeys(method for method, _ in groups))
        raise UnknownName("method", baseline, known, where="--baseline")
    found = [
        (method, order, what, difference, spread)
        for (method, order), group in groups.items()
        if method != baseline and (baseline, order) in base
        for what, tasks in (("tasks", _tasks), ("text", _text))
        if (difference := _difference(group, base[baseline, order], tasks)) is not None
        for spread in [_over_runs(group, base[baseline, order], tasks)]
    ]
    corrected = stats.holm([difference.p for *_, difference, _ in found])
    rows = [
        [
            text(method + (f" ({order})" if order != "given" else "")),
            text(what),
            *_values(difference, p, spread),
        ]
        for (method, order, what, difference, spread), p in zip(found, corrected, strict=True)
    ]
    title = f"{experiment.name}: final scores less those of {baseline}"
    return Table(f"{experiment.name}-comparison", title, COLUMNS, [rows], [NOTE])


def _tasks(result: Result) -> list[str]:
    return result.tasks


def _text(result: Result) -> list[str]:
    return result.text


def _difference(
    group: Sequence[Result], base: Sequence[Result], tasks: Callable[[Result], list[str]]
) -> stats.Comparison | None:
    by_seed = {result.config.seed: result for result in base}
    pairs: dict[str, stats.Pairs] = {}
    for result in group:
        other = by_seed.get(result.config.seed)
        for task in tasks(result) if other is not None else ():
            mine, theirs = _items(result, task), _items(other, task)
            shared = [item for item in mine if item in theirs]
            known = pairs.get(task, stats.Pairs([], []))
            pairs[task] = replace(
                known,
                difference=[*known.difference, *(mine[item][0] - theirs[item][0] for item in shared)],
                cluster=[*known.cluster, *(mine[item][1] for item in shared)],
            )
    return stats.compare(list(pairs.values()))


def _over_runs(
    group: Sequence[Result], base: Sequence[Result], tasks: Callable[[Result], list[str]]
) -> Value:
    by_seed = {result.config.seed: result for result in base}
    found = []
    for result in group:
        other = by_seed.get(result.config.seed)
        if other is not None:
            mine = metrics.average(result.row(result.last, tasks(result)))
            theirs = metrics.average(other.row(other.last, tasks(other)))
            found.append(None if mine is None or theirs is None else mine - theirs)
    return number(*metrics.mean_and_sd(found), signed=True)


def _items(result: Result | None, task: str) -> Scored:
    """The scores of a task's items after the last stage."""
    cell = None if result is None else result.cells.get((result.last, task))
    if result is None or cell is None or cell.predictions is None:
        return {}
    lines = files.read_lines(result.run.folder / cell.predictions)
    if cell.scorer.startswith("lm-eval"):
        return {
            f"{line['task']} {line['id']}": (100 * float(line["right"]), f"{line['task']} {line['id']}")
            for line in lines
            if isinstance(line.get("right"), int | float)
        }
    groups = {record.id: record.group or record.id for record in map(Record.read, lines)}
    scores = read_scores(result.run.folder / cell.predictions, cell.scorer) or []
    return {item.id: (100 * item.score, groups[item.id]) for item in scores if item.score is not None}


def _values(found: stats.Comparison, p: float, spread: Value) -> list[Value]:
    verdict = found.verdict(p, MATTERS)
    words = verdict if verdict != "unresolved" else f"underpowered ({found.items_needed(MATTERS):,} items)"
    return [
        replace(number(found.value, signed=True), spread=found.error),
        text(f"{found.low:+.1f} to {found.high:+.1f}"),
        Value("<0.001" if p < 0.001 else f"{p:.3f}", p),
        text(words, "bold" if verdict in ("higher", "lower") else ""),
        spread,
        Value(f"{found.items:,}", found.items),
        number(found.resolves),
    ]
