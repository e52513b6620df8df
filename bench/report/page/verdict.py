"""What a reader takes away: which method is best, by how much, and which others do not differ significantly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from moextend.bench import methods, metrics, stats
from moextend.bench.report.collect import Experiment, Result, grouped
from moextend.bench.report.comparison import (
    MARGIN,
    METRICS,
    comparison_table,
    has_baseline,
)
from moextend.bench.report.forgetting import summary
from moextend.bench.report.items import ItemReader
from moextend.bench.report.table import Table, Value
from moextend.errors import counted

ACC = METRICS["acc"]
APART = ("better", "worse")
"""Verdicts of a significant difference."""
KNOWN = {
    "given": "Given the task id",
    "inferred": "Inferring the task",
    "none": "Given no task id",
    "?": "With a task identity that is not recorded",
}
"""What methods know of the task at inference -> the start of a sentence."""


@dataclass
class Verdict:
    """The best method, and what the tests say of the others."""

    sentences: list[str] = field(default_factory=list)
    leader: str | None = None
    """The method with the highest ACC."""
    comparison: Table | None = None
    """Every method against the one with the highest ACC."""


def verdict(experiment: Experiment, baseline: str | None = None, margin: float = MARGIN) -> Verdict:
    """The verdict over the sequence runs of an experiment; `baseline`, if it has run, is what the comparison shows."""
    found, reader = Verdict(), ItemReader()
    groups = {
        method: group
        for (method, order), group in grouped(experiment.of("sequence")).items()
        if order == "given" and methods.role_of(method) != "base"
    }
    if not groups:
        return found
    tables: dict[str, Table] = {}

    def against(method: str) -> Table:
        if method not in tables:
            tables[method] = comparison_table(experiment, method, margin, reader)
        return tables[method]

    found.leader = _leader(groups)
    shown = baseline if baseline and has_baseline(experiment, baseline) else found.leader
    found.comparison = against(shown) if shown else None
    found.sentences = _sentences(groups, against)
    return found


def _sentences(groups: dict[str, list[Result]], against: Callable[[str], Table]) -> list[str]:
    """One sentence of the methods that know as much of the task; the highest ACC first."""
    found = []
    for identity, own in _by_identity(groups).items():
        best = _leader(own)
        if best:
            rows = rows_of(against(best), ACC)
            found.append((_mean(own[best], "acc") or 0.0, _sentence(own, best, identity, rows)))
    return [text for _, text in sorted(found, reverse=True)]


Row = dict[str, Value]


def rows_of(table: Table, metric: str) -> list[Row]:
    """The rows of a metric in a comparison, by column."""
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for part in table.sections for row in part]
    return [row for row in rows if row["metric"].text == metric]


def _apart(row: Row) -> bool:
    """Whether a difference is significant; of one seed by its items alone, which the sentence says."""
    verdict, p = row["verdict"].text, row["p"].number
    return verdict in APART or (verdict == "items only" and p is not None and p < stats.LEVEL)


def _leader(groups: dict[str, list[Result]]) -> str | None:
    means = {method: _mean(group, "acc") for method, group in groups.items()}
    known = {method: mean for method, mean in means.items() if mean is not None}
    return max(known, key=known.__getitem__, default=None)


def _mean(group: Sequence[Result], key: str) -> float | None:
    return metrics.mean_and_sd([summary(result)[key] for result in group])[0]


def _by_identity(groups: dict[str, list[Result]]) -> dict[str, dict[str, list[Result]]]:
    found: dict[str, dict[str, list[Result]]] = {}
    for method, group in groups.items():
        found.setdefault(group[0].facts.task_identity or "?", {})[method] = group
    return found


def _sentence(groups: dict[str, list[Result]], best: str, identity: str, rows: list[Row]) -> str:
    """Who is first among the methods that know as much of the task, and what is known of the second."""
    acc = _mean(groups[best], "acc")
    text = (
        f"{KNOWN.get(identity, KNOWN['?'])}, {best} reaches ACC {acc:.1f}% after stage {groups[best][0].last}"
    )
    means = {method: _mean(group, "acc") for method, group in groups.items() if method != best}
    others = {method: mean for method, mean in means.items() if mean is not None}
    if not others:
        return f"{text}; no other method ran that way."
    second = max(others, key=lambda method: others[method])
    row = next((row for row in rows if row["method"].text == second), None)
    text += f", the highest of {len(others) + 1} methods"
    if row is None or row["difference"].number is None:
        return f"{text}; {second} ({others[second]:.1f}%) has no seed in common."
    ahead, shared = -row["difference"].number, int(row["seeds"].number or 0)
    text += f": {abs(ahead):.1f} points {'below' if ahead < 0 else 'above'} {second}"
    if shared < max(len(groups[best]), len(groups[second])):
        text += f" with the {counted(shared, 'seed')} that both ran"
    low, high = row["low"].number, row["high"].number
    if low is None or high is None:
        return f"{text}; nothing is tested, as the answers of single items are not kept."
    p = row["p"].text
    p = f"p < {p[1:]}" if p.startswith("<") else f"p = {p}"
    tests = counted(len(rows), "comparison")
    text += f" (95% interval {0 - high:+.1f} to {0 - low:+.1f}, {p}, corrected for {tests}"
    text += ", over items of one seed only)" if row["verdict"].text == "items only" else ")"
    tied = {row["method"].text for row in rows if not _apart(row)}
    ties = sorted(tied & others.keys(), key=lambda method: -others[method])
    if not ties:
        return f"{text}. The difference from {'it' if len(others) == 1 else 'each of them'} is significant."
    shown = ", ".join(ties[:2]) + (f" and {len(ties) - 2} more" if len(ties) > 2 else "")
    return f"{text}. It is not significantly different from {shown}."
