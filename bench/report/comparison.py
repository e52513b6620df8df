"""Every method against a baseline, metric by metric: what the difference is, and whether runs and items can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from moextend.bench import methods, metrics, stats
from moextend.bench.report.collect import (
    Experiment,
    Groups,
    Result,
    grouped,
    lacking_notes,
    row_name,
    run_notes,
    unfinished_mark,
)
from moextend.bench.report.footnotes import UNTOUCHED, backend_notes, media_of
from moextend.bench.report.forgetting import text_untouched
from moextend.bench.report.items import ItemReader, Parts, Weights, contrast
from moextend.bench.report.table import Column, Table, Value, count, interval, number, p_value, text
from moextend.bench.run.complete import planned
from moextend.errors import InputError, UnknownName

COLUMNS = [
    Column("method", "method", numeric=False),
    Column("metric", "metric", numeric=False),
    Column("difference", "diff."),
    Column("interval", "interval", numeric=False, machines=False),
    Column("low", "low", spread="", wide=True),
    Column("high", "high", spread="", wide=True),
    Column("p", "p", spread=""),
    Column("verdict", "verdict", numeric=False),
    Column("resolves", "MDD", spread=""),
    Column("seeds", "seeds", spread=""),
    Column("margin", "margin", spread="", wide=True),
    Column("tests", "tests", spread="", wide=True),
    Column("p_alone", "p, this test alone", spread="", wide=True),
    Column("p_equivalent", "p of equivalence", spread="", wide=True),
    Column("error", "standard error", spread="", wide=True),
    Column("seed_error", "of it: seeds", spread="", wide=True),
    Column("item_error", "of it: items", spread="", wide=True),
    Column("clusters", "clusters", spread="", wide=True),
]
MARGIN = 1.0
"""Points: differences below this do not count."""
NOT_KEPT = "items not kept"
"""Verdict without a test: the answers of the items are not there."""
NO_SEED, NO_SCORE = "no shared seed", "a score is missing"
"""Verdicts of what cannot be compared."""

METRICS = {"la": "LA", "acc": "ACC", "bwt": "BWT", "fm": "FM", "fwt": "FWT"}
"""Metrics of the learned tasks, as `metrics.weights` names them -> their column in the forgetting table."""
CHANGE = "Δ text"
LESS_IS_BETTER = ("FM",)


def check_margin(points: float) -> None:
    """Raises InputError for what is no difference between two scores that counts as none."""
    if not 0 < points <= 100:
        raise InputError(
            f"{points:g} is not a margin.",
            where="--margin",
            hint="Give points, above 0 and at most 100: --margin 1.0.",
        )


def comparison_table(
    experiment: Experiment, baseline: str, margin: float = MARGIN, reader: ItemReader | None = None
) -> Table:
    """Every column of the forgetting table of every method less that of `baseline`; a section a column.

    `reader` is shared by several comparisons of one experiment, so that files are read once.

    Raises:
        UnknownName: no run of `baseline`.  InputError: a wrong margin, see `check_margin`.
    """
    check_margin(margin)
    groups = grouped(experiment.of("sequence"))
    check_baseline(baseline, [method for method, _ in groups])
    reader = reader or ItemReader()
    tests = {
        metric: list(_tests(Measured(reader, partial(metric_weights, metric)), groups, baseline))
        for metric in [*METRICS.values(), CHANGE]
    }
    sections = [section(rows, metric, margin) for metric, rows in tests.items()]
    return Table(
        f"{experiment.name}-comparison",
        f"{experiment.name}: differences from {baseline}",
        COLUMNS,
        [section for section in sections if section],
        [
            *_notes(groups, [test for rows in tests.values() for test in rows], baseline, margin),
            *_missing_notes(experiment),
        ],
        kind="comparison",
    )


def check_baseline(baseline: str, methods_run: Iterable[str]) -> None:
    """UnknownName if the baseline is neither one of these methods nor the base (row 0)."""
    known = [*methods_run, methods.named("base")]
    if baseline not in known:
        raise UnknownName("method", baseline, known, where="--baseline")


def has_baseline(experiment: Experiment, baseline: str) -> bool:
    """Whether methods can be compared with the baseline: it has run, or is the base (row 0)."""
    return baseline in _run_in([experiment]) or baseline == methods.named("base")


def with_baseline(experiments: Sequence[Experiment], baseline: str) -> list[Experiment]:
    """Those that have the baseline, of which the first names the others as left out; UnknownName if none has it."""
    check_baseline(baseline, _run_in(experiments))
    kept = [experiment for experiment in experiments if has_baseline(experiment, baseline)]
    others = [
        f"{experiment.label} (no run of {baseline})"
        for experiment in experiments
        if not has_baseline(experiment, baseline)
    ]
    return [replace(kept[0], left_out=[*kept[0].left_out, *others]), *kept[1:]] if others else kept


def _run_in(experiments: Sequence[Experiment]) -> dict[str, None]:
    """The methods that learned the sequences, in order."""
    return {result.config.method: None for experiment in experiments for result in experiment.of("sequence")}


def default_baseline(known: Sequence[str]) -> str:
    """Baseline if none is named: the package's own method with its default settings (the shortest spec), else its first
    variant.

    The base where no variant of it ran.
    """
    own = [method for method in known if methods.role_of(method) == "reference"]
    default = methods.parse(methods.named("reference")).config
    plain = sorted((method for method in own if methods.parse(method).config == default), key=len)
    return next(iter(plain + own), methods.named("base"))


Weigh = Callable[[Result, int | None], Weights | None]
"""A run, and the row of the matrix to take for all (None: each its own) -> the cells of a metric with their weights."""
Measure = tuple[float, Parts | None]
"""A metric of a run, and what clusters add to it; None where the items are not kept."""


@dataclass(frozen=True)
class Test:
    """One row: a method against the baseline in one metric."""

    name: Value
    values: list[float]
    """One difference per seed that the method and the baseline share."""
    found: stats.Contrast | None
    """None where the items are not kept, or nothing can be compared."""
    lacks: str = ""
    """Why nothing can be compared; else empty."""
    untouched: bool = False
    """Whether the method's text is what it is by construction."""


class Measured:
    """One metric of runs, measured once per run."""

    def __init__(self, reader: ItemReader, weigh: Weigh) -> None:
        self._weigh = weigh
        self._reader = reader
        self._known: dict[tuple[Path, int | None], Measure | None] = {}

    def __call__(self, result: Result, *, at: int | None = None) -> Measure | None:
        """The metric, and what clusters add to it; `at` takes that row of the matrix for all."""
        key = (result.run.folder, at)
        if key not in self._known:
            self._known[key] = self._measure(result, at)
        return self._known[key]

    def _measure(self, result: Result, at: int | None) -> Measure | None:
        found = self._weigh(result, at)
        if found is None:
            return None
        cells = {key: result.cells.get((key[0] if at is None else at, key[1])) for key in found}
        known = {key: cell.value for key, cell in cells.items() if cell is not None}
        if len(known) < len(found):
            return None
        value = sum(weight * known[key] for key, weight in found.items())
        return value, self._reader.parts(result, found, at=at)


def differences(
    pairs: Sequence[tuple[Measure | None, Measure | None]],
) -> tuple[list[float], stats.Contrast | None] | None:
    """The first of each pair less the second, and what can be concluded of it; None where one is not known."""
    known = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
    if len(known) < len(pairs):
        return None
    values = [mine[0] - theirs[0] for mine, theirs in known]
    parts = [(mine[1], theirs[1]) for mine, theirs in known if mine[1] and theirs[1]]
    return values, contrast(values, parts) if parts and len(parts) == len(known) else None


def same_seeds(mine: Sequence[Result], theirs: Sequence[Result]) -> list[tuple[Result, Result]]:
    """The runs of both that share a seed."""
    by_seed = {result.config.seed: result for result in theirs}
    return [(each, by_seed[each.config.seed]) for each in mine if each.config.seed in by_seed]


def _tests(measured: Measured, groups: Groups, baseline: str) -> Iterator[Test]:
    """One test per method and order, as far as the metric of both is known in every pair of runs."""
    for (method, order), group in groups.items():
        if method == baseline:
            continue
        pairs = list(pairs_of(measured, groups, method, order, baseline).values())
        found, name = differences(pairs), row_name(group, mark=unfinished_mark(group))
        if not pairs:
            yield Test(name, [], None, NO_SEED)
        elif found is not None:
            yield Test(name, *found, untouched=all(map(text_untouched, group)))
        elif any(_lacks_scores(result) for result in (*group, *groups.get((baseline, order), []))):
            yield Test(name, [], None, NO_SCORE)


def verdicts(
    measured: Measured, groups: Groups, baseline: str, *, less_is_better: bool, margin: float = MARGIN
) -> dict[str, str]:
    """Row's name -> verdict of `comparison_table` on it, in a metric or another measure."""
    tests = list(_tests(measured, groups, baseline))
    rows = section(tests, METRICS["fm" if less_is_better else "acc"], margin)
    place = next(i for i, column in enumerate(COLUMNS) if column.key == "verdict")
    return {row[0].text: row[place].text for row in rows}


def _lacks_scores(result: Result) -> bool:
    """Whether a run has no score of some cell, because it is not finished or its file is damaged."""
    return any(key not in result.cells for key in planned(result.config))


def pairs_of(
    measured: Measured, groups: Groups, method: str, order: str, baseline: str
) -> dict[int, tuple[Measure | None, Measure | None]]:
    """Seed -> the metric of the method and of the baseline in one order; only seeds that both have."""
    group = groups[method, order]
    if is_row_zero(baseline):
        return {mine.config.seed: (measured(mine), measured(mine, at=0)) for mine in group}
    met = same_seeds(group, groups.get((baseline, order), []))
    return {mine.config.seed: (measured(mine), measured(other)) for mine, other in met}


def is_row_zero(baseline: str) -> bool:
    """Whether the baseline is the one that every run brings along: its own row 0."""
    return methods.role_of(baseline) == "base"


def metric_weights(metric: str, result: Result, at: int | None) -> Weights | None:
    """(stage, task) -> its weight in a metric of the forgetting table; None where the metric is not known."""
    if metric == CHANGE:
        share = 1 / max(len(result.text), 1)
        ends = [(0, -share), (result.last, share)]
        return {(stage, task): weight for task in result.text for stage, weight in ends} or None
    name = next(key for key, title in METRICS.items() if title == metric)
    a = result.matrix if at is None else [result.matrix[at]] * len(result.matrix)
    found = metrics.weights(name, a)
    return None if found is None else {(t, result.tasks[i]): weight for (t, i), weight in found.items()}


def section(tests: Sequence[Test], metric: str, margin: float) -> list[list[Value]]:
    """The rows of one metric, which are one family of tests; only ACC has rows where nothing can be compared."""
    if metric != METRICS["acc"] and not any(test.values for test in tests):
        return []
    known = [test.found for test in tests if test.found]
    corrected = iter(stats.holm([found.p for found in known]))
    equivalent = iter(stats.holm([found.p_equivalent(margin) for found in known]))
    rows = []
    for test in tests:
        difference = number(*metrics.mean_and_sd(test.values), signed=True) if test.values else Value("-")
        cells = {
            "method": test.name,
            "metric": text(metric),
            "difference": difference.marked(UNTOUCHED if test.untouched and metric == CHANGE else ""),
            "verdict": text(test.lacks or NOT_KEPT),
            "seeds": count(len(test.values)),
        }
        if test.found:
            p, same = next(corrected), next(equivalent)
            sign = -1 if metric in LESS_IS_BETTER else 1
            word = stats.verdict(p, same, gain=sign * test.found.value, seeds=test.found.seeds)
            cells["verdict"] = text(word, "bold" if word in ("better", "worse") else "")
            cells["p"] = p_value(p)
            cells["p_equivalent"] = p_value(same)
            cells |= _details(test.found, len(known), margin)
        rows.append([cells.get(column.key, Value("-")) for column in COLUMNS])
    return rows


def _details(found: stats.Contrast, tests: int, margin: float) -> dict[str, Value]:
    level = stats.LEVEL / tests
    low, high = found.interval(level)
    return {
        "interval": interval(low, high),
        "low": number(low, signed=True),
        "high": number(high, signed=True),
        "resolves": number(found.resolves(level)),
        "margin": number(margin),
        "tests": count(tests),
        "p_alone": p_value(found.p),
        "error": number(found.error),
        "seed_error": number(found.seed_variance**0.5),
        "item_error": number(found.item_variance**0.5),
        "clusters": count(found.clusters),
    }


def _missing_notes(experiment: Experiment) -> list[str]:
    """The runs that are not compared, in full or in part."""
    notes = [*backend_notes(experiment.results), *lacking_notes(experiment.results)]
    if notes and not all(result.has_items and not result.lacks for result in experiment.results):
        notes[0] = f"{notes[0]} Rows that need it are left out."
    notes += run_notes(experiment)
    return notes


def _notes(groups: Groups, tests: Sequence[Test], baseline: str, margin: float) -> list[str]:
    """What the columns mean."""
    notes = [
        f"diff.: the method minus {baseline}, mean (± standard deviation) over seeds, each paired with the same seed "
        "of the baseline. metric: a column of the forgetting table; for FM, lower is better.",
        "interval: 95% for all tests of a metric together (Bonferroni). p: for no difference, corrected for them "
        "(Holm). Both count two sources of variance: seeds (t, seeds - 1 degrees of freedom) and items, clustered by "
        "image over all tasks (docs/statistics.md).",
        f"better, worse: p < 0.05. equivalent: two one-sided tests, also corrected, place the difference within "
        f"±{margin:g} (--margin), whatever its sign. undecided: neither. MDD: the smallest true difference found with "
        "80% power at the corrected level.",
    ]
    if any(len(test.values) == 1 for test in tests):
        notes.append("items only: one seed says nothing about others; interval, p and MDD count items alone.")
    if any(test.lacks == NO_SCORE for test in tests):
        notes.append(f"{NO_SCORE}: of a run of the method or of {baseline}, in this metric.")
    if any(test.lacks == NO_SEED for test in tests):
        notes.append(
            f"{NO_SEED}: the method was not run with any seed of {baseline}, so nothing is compared."
        )
    if any(all(map(text_untouched, group)) for (method, _), group in groups.items() if method != baseline):
        notes.append(media_of([one for group in groups.values() for one in group]).by_construction)
    if is_row_zero(baseline):
        notes.append(f"{baseline}: row 0 of the same run, in all stages.")
    return notes
