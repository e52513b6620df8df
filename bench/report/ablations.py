"""Settings of a method side by side: one row per variant, a column per setting in which the variants differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moextend.bench.report.collect import Experiment, Result, grouped, row_name, unfinished_mark
from moextend.bench.report.costs import trained_parameters
from moextend.bench.report.footnotes import UNTOUCHED, media_of
from moextend.bench.report.forgetting import (
    summary,
    text_untouched,
)
from moextend.bench.report.table import Column, Table, Value, over_runs, text

NOTE = (
    "Variants of one method: the settings in which they differ, all others equal. trained: parameters of the largest "
    "stage. LA, ACC, BWT and Δ text as in the summary."
)
UNKNOWN = "?: an early run, which did not record the setting."


def ablation_tables(experiment: Experiment) -> list[Table]:
    """One table per method that ran with several settings."""
    families: dict[str, list[list[Result]]] = {}
    for (method, order), group in grouped(experiment.of("sequence")).items():
        if order == "given":
            families.setdefault(method.partition(":")[0], []).append(group)
    return [_table(experiment, name, groups) for name, groups in families.items() if len(groups) > 1]


def _table(experiment: Experiment, method: str, groups: Sequence[list[Result]]) -> Table:
    settings = [settings_of(group[0]) for group in groups]
    keys = dict.fromkeys(key for known in settings for key in known)
    differ = [key for key in keys if len({setting(known.get(key, "?")) for known in settings}) > 1]
    columns = [Column("method", "method", numeric=False)]
    columns += [Column(f"set_{key}", key, numeric=False) for key in differ]
    columns += [
        Column("la", "LA"), Column("acc", "ACC"), Column("bwt", "BWT"), Column("text_change", "Δ text"),
        Column("trained_parameters", "trained", spread=""), Column("runs", "runs", spread=""),
    ]  # fmt: skip
    rows = [
        [
            row_name(group, mark=unfinished_mark(group)),
            *(text(setting(known.get(key, "?"))) for key in differ),
            *_metrics(group),
            trained_parameters(group),
            Value(str(len(group)), len(group)),
        ]
        for group, known in zip(groups, settings, strict=True)
    ]
    notes = [NOTE]
    notes += [UNKNOWN] if any(value.text == "?" for row in rows for value in row) else []
    untouched = any(text_untouched(result) for group in groups for result in group)
    notes += [media_of(experiment.results).by_construction] if untouched else []
    name = experiment.name
    return Table(
        f"{name}-{method}-ablations",
        f"{name}: settings of {method}",
        columns,
        [rows],
        notes,
        kind="ablations",
    )


def settings_of(result: Result) -> dict[str, Any]:
    """The settings of a run with all defaults; those that its name holds where it recorded none."""
    if result.facts.settings:
        return dict(result.facts.settings)
    _, _, tail = result.config.method.partition(":")
    return dict(part.partition("=")[::2] for part in tail.split(",") if part)


def setting(value: Any) -> str:
    """A setting as a table shows it."""
    if value is None:
        return "-"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _metrics(group: Sequence[Result]) -> list[Value]:
    found = [summary(result) for result in group]
    la, acc = (over_runs(each[key] for each in found) for key in ("la", "acc"))
    bwt, change = (over_runs((each[key] for each in found), signed=True) for key in ("bwt", "text_change"))
    untouched = change.number is not None and all(map(text_untouched, group))
    return [la, acc, bwt, change.marked(UNTOUCHED if untouched else "")]
