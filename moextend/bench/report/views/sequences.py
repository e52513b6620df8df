"""Claims about several sequences: the comparison in their mean, and in each of them, corrected for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from moextend.bench import metrics, stats
from moextend.bench.report.collect import TITLES, Experiment
from moextend.bench.report.items import ItemReader
from moextend.bench.report.notes import UNTOUCHED, untouched_notes
from moextend.bench.report.table import (
    Column,
    Row,
    Table,
    cells_of,
    count,
    named,
    number,
    p_value,
    plain,
    text,
    words_column,
)
from moextend.bench.report.views.comparison import (
    TESTED,
    Measured,
    Pair,
    compared,
    differences,
    mean_difference,
    metric_weights,
    pairs_of,
)

COLUMNS = [
    words_column("method"),
    words_column("metric"),
    plain("sequences"),
    Column("difference", "mean diff."),
    plain("p"),
    plain("p_not_worse", "p not worse"),
    words_column("verdict"),
    words_column("better", "better in"),
    words_column("worse", "worse in"),
]


def sequences_table(experiments: Sequence[Experiment], baseline: str, margin: float) -> Table | None:
    """What holds over several sequences; None where no method shares seeds with the baseline in two of them.

    The mean over sequences is tested as that over orders is: one value per seed, of the seeds that all of them have,
    and what an image adds in all of them.
    """
    reader = ItemReader()
    pairs = {
        metric: _pairs(Measured(reader, partial(metric_weights, metric)), experiments, baseline)
        for metric in TESTED
    }
    sections = [_section(found, metric, experiments, margin) for metric, found in pairs.items()]
    if not any(sections):
        return None
    shared = {name for found in pairs.values() for sequences in found.values() for name in sequences}
    used = [experiment for experiment in experiments if experiment.label in shared]
    runs = [result for experiment in experiments for result in experiment.of("sequence")]
    notes = [
        f"mean diff.: the method minus {baseline}, mean over sequences, which are fixed: one value per seed. p: for no "
        f"difference; p not worse: for a mean loss of {margin:g} points (--margin) or more. Both are corrected for the "
        "methods of the metric (Holm).",
        "not worse: undecided, but such a loss is excluded. better in, worse in: sequences with p < 0.05, corrected "
        "for all methods and sequences of the metric (Holm).",
        *_repeated(used),
        *untouched_notes(runs),
    ]
    title = f"{len(used)} sequences: differences from {baseline}"
    return Table("sequences", title, COLUMNS, [rows for rows in sections if rows], notes, kind="sequences")


def _repeated(experiments: Sequence[Experiment]) -> list[str]:
    """A note per group of experiments that learn the same tasks in the same order, such as on bases of other bits."""
    groups: dict[str, list[str]] = {}
    for one in experiments:
        tasks = ", ".join(stage["task"] for stage in one.shared["sequence"]["stages"])
        groups.setdefault(tasks, []).append(one.label)
    return [
        f"{', '.join(labels)}: the same stages on other bases or with other settings. Their mean says nothing about "
        "other sequences."
        for labels in groups.values()
        if len(labels) > 1
    ]


def _section(
    pairs: Mapping[str, Mapping[str, Mapping[int, Pair]]],
    metric: str,
    experiments: Sequence[Experiment],
    margin: float,
) -> list[Row]:
    """A row per method that several sequences have."""
    each, mean = dict[tuple[str, str], stats.Contrast](), dict[str, tuple[list[float], stats.Contrast]]()
    for method, sequences in pairs.items():
        for name, of_seeds in sequences.items():
            if (one := differences([*of_seeds.values()])) and one[1]:
                each[method, name] = one[1]
        common = sorted(set.intersection(*map(set, sequences.values())))
        shared = {name: {seed: own[seed] for seed in common} for name, own in sequences.items()}
        if common and (one := mean_difference(shared)) and one[1]:
            mean[method] = one[0], one[1]
    means = [found for _, found in mean.values()]
    apart = dict(zip(each, stats.holm([found.p for found in each.values()]), strict=True))
    corrected = zip(
        stats.holm([found.p for found in means]),
        stats.holm([found.p_equivalent(margin) for found in means]),
        stats.holm([found.p_not_worse(margin) for found in means]),
        strict=True,
    )
    rows = []
    for (method, (values, found)), (p, same, not_worse) in zip(mean.items(), corrected, strict=True):
        verdict: str = stats.verdict(p, same, found)
        runs = [run for one in experiments for run in one.of("sequence") if run.config.method == method]
        untouched = metric == "text_change" and all(run.text_untouched for run in runs)
        own = {name: one for (of, name), one in each.items() if of == method}
        sure = {
            name: one.value
            for name, one in own.items()
            if one.seeds > 1 and apart[method, name] < stats.LEVEL
        }
        cells = {
            "method": named(method),
            "metric": text(TITLES[metric]),
            "sequences": count(len(own)),
            "difference": number(*metrics.mean_and_sd(values), signed=True).marked(
                UNTOUCHED if untouched else ""
            ),
            "p": p_value(p),
            "p_not_worse": p_value(not_worse),
            "verdict": text("not worse" if verdict == "undecided" and not_worse < stats.LEVEL else verdict),
            "better": text(", ".join(name for name, value in sure.items() if value > 0) or "-"),
            "worse": text(", ".join(name for name, value in sure.items() if value < 0) or "-"),
        }
        rows.append(cells_of(COLUMNS, cells))
    return rows


def _pairs(
    measured: Measured, experiments: Sequence[Experiment], baseline: str
) -> dict[str, dict[str, Mapping[int, Pair]]]:
    """Method -> sequence -> seed -> its metric and the baseline's, in the given order; methods of two or more."""
    found: dict[str, dict[str, Mapping[int, Pair]]] = {}
    for experiment in experiments:
        groups = compared(experiment, baseline)
        for method, order in groups:
            if method != baseline and order == "given":
                pairs = pairs_of(measured, groups, method, order, baseline)
                known = {seed: pair for seed, pair in pairs.items() if all(pair)}
                found.setdefault(method, {}).update({experiment.label: known} if known else {})
    return {method: sequences for method, sequences in found.items() if len(sequences) > 1}
