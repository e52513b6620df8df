"""Every method against a baseline, metric by metric: what the difference is, and whether runs and items can tell.

Where methods and baseline ran in several orders of the tasks, the same tests of the mean over the orders follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

from moextend.bench import methods, metrics, stats
from moextend.bench.report.collect import (
    COMPARED,
    TITLES,
    Experiment,
    Groups,
    Result,
    called,
    grouped,
    lacking_notes,
    measures,
    row_name,
    run_notes,
)
from moextend.bench.report.items import ItemReader, Parts, Weights, contrast, mean_parts
from moextend.bench.report.notes import UNTOUCHED, backend_notes, untouched_notes
from moextend.bench.report.table import (
    Column,
    Row,
    Table,
    Value,
    cells_of,
    count,
    named,
    number,
    p_value,
    plain,
    text,
    words_column,
)
from moextend.bench.report.views import MARGIN, Asked
from moextend.bench.report.views.forgetting import difference_tables
from moextend.bench.run.complete import planned
from moextend.errors import InputError, UnknownName, counted

COLUMNS = [
    words_column("method"),
    words_column("metric"),
    Column("difference", "diff."),
    Column("interval", "interval", numeric=False, machines=False),
    plain("low", wide=True),
    plain("high", wide=True),
    plain("p"),
    words_column("verdict"),
    plain("resolves", "MDD"),
    plain("seeds"),
    plain("margin", wide=True),
    plain("tests", wide=True),
    plain("p_alone", "p, this test alone", wide=True),
    plain("p_equivalent", "p of equivalence", wide=True),
    plain("error", "standard error", wide=True),
    plain("seed_error", "of it: seeds", wide=True),
    plain("item_error", "of it: items", wide=True),
    plain("clusters", wide=True),
]
NOT_KEPT = "items not kept"
"""Verdict without a test: the answers of the items are not there."""
NO_SEED, NO_SCORE = "no shared seed", "a score is missing"
"""Verdicts of what cannot be compared."""

OVER_ORDERS = (
    "Mean over the orders that the method and the baseline share: one value per seed, of the seeds that ran in all of "
    "them. The test is that of one order. It is about these orders; the spread over orders below says how far another "
    "order may be. Each metric is one family of tests over the methods here."
)

UNTESTED = "no test"
"""Verdict on FM, which is not TESTED: it takes the best row that was observed, so noise counts as forgetting, the more
the more rows."""

TESTED = tuple(metric for metric in COMPARED if metric != "fm")
"""Metrics that have verdicts."""


def check_margin(points: float) -> None:
    """Raises InputError for what is no difference between two scores that counts as none."""
    if not 0 < points <= 100:
        raise InputError(
            f"{points:g} is not a margin.",
            where="--margin",
            hint="Give points, above 0 and at most 100: --margin 1.0.",
        )


def tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """The comparison in every order, in the mean over orders, and the spread of the differences over orders."""
    assert asked.baseline is not None, "the command asks for it"
    reader = ItemReader()
    return [
        comparison_table(experiment, asked.baseline, asked.margin, reader),
        *_over_orders(experiment, asked.baseline, asked.margin, reader),
        *difference_tables(experiment, asked.baseline),
    ]


def comparison_table(
    experiment: Experiment, baseline: str, margin: float = MARGIN, reader: ItemReader | None = None
) -> Table:
    """Every column of the forgetting table of every method less that of `baseline`; a section a column.

    `reader` is shared by several comparisons of one experiment, so that files are read once.

    Raises:
        UnknownName: no run of `baseline`.  InputError: a wrong margin, see `check_margin`.
    """
    check_margin(margin)
    groups, reader = compared(experiment, baseline), reader or ItemReader()
    check_baseline(baseline, _run_in([experiment]))
    tests = {
        metric: list(_tests(Measured(reader, partial(metric_weights, metric)), groups, baseline))
        for metric in COMPARED
    }
    notes = _notes(groups, [test for rows in tests.values() for test in rows], baseline, margin)
    title = f"{experiment.label}: differences from {baseline}"
    return _table(
        f"{experiment.label}-comparison", title, tests, margin, [*notes, *_missing_notes(experiment)]
    )


def _table(
    key: str, title: str, tests: Mapping[str, Sequence[Test]], margin: float, notes: list[str]
) -> Table:
    sections = [section(rows, metric, margin) for metric, rows in tests.items()]
    return Table(key, title, COLUMNS, [rows for rows in sections if rows], notes, kind="comparison")


def check_baseline(baseline: str, methods_run: Iterable[str]) -> None:
    """UnknownName if the baseline is neither one of these methods nor the base (row 0)."""
    known = [*methods_run, methods.named("base")]
    if baseline not in known:
        raise UnknownName("method", baseline, known, where="--baseline")


def has_baseline(experiment: Experiment, baseline: str) -> bool:
    """Whether methods can be compared with the baseline: it has run, or is the base (row 0)."""
    return baseline in _run_in([experiment]) or baseline == methods.named("base")


def compared(experiment: Experiment, baseline: str) -> Groups:
    """The runs in sequence of each method and order, and those of the baseline where it is a bound."""
    runs = [run for run in experiment.results if called(run.config) == baseline]
    own = {(baseline, order): group for (_, order), group in grouped(runs).items()}
    return {**grouped(experiment.of("sequence")), **own}


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
    """The methods and bounds that learned the sequences, in order."""
    return {called(result.config): None for experiment in experiments for result in experiment.results}


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
    found = contrast(values, parts) if parts and len(parts) == len(known) else None
    collapsed = any(stats.collapsed([value for value, _ in runs]) for runs in zip(*known, strict=True))
    return values, found and replace(found, collapsed=collapsed)


def _tests(measured: Measured, groups: Groups, baseline: str) -> Iterator[Test]:
    """One test per method and order, as far as the metric of both is known in every pair of runs."""
    for (method, order), group in groups.items():
        if method == baseline:
            continue
        pairs = list(pairs_of(measured, groups, method, order, baseline).values())
        found, name = differences(pairs), row_name(group)
        if not pairs:
            yield Test(name, [], None, NO_SEED)
        elif found is not None:
            yield Test(name, *found, untouched=all(result.text_untouched for result in group))
        elif any(_lacks_scores(result) for result in (*group, *groups.get((baseline, order), []))):
            yield Test(name, [], None, NO_SCORE)


def verdicts(measured: Measured, groups: Groups, baseline: str) -> dict[str, str]:
    """Row's name -> verdict of `comparison_table` on it, in a metric or another measure."""
    tests = list(_tests(measured, groups, baseline))
    return {tests[place].name.text: word for place, (word, *_) in _corrected(tests, MARGIN).items()}


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
    theirs = {result.config.seed: result for result in groups.get((baseline, order), [])}
    met = ((mine, theirs.get(mine.config.seed)) for mine in group)
    return {mine.config.seed: (measured(mine), measured(other)) for mine, other in met if other}


def is_row_zero(baseline: str) -> bool:
    """Whether the baseline is the one that every run brings along: its own row 0."""
    return methods.role_of(baseline) == "base"


def metric_weights(metric: str, result: Result, at: int | None) -> Weights | None:
    """(stage, task) -> its weight in a metric of the forgetting table; None where the metric is not known."""
    if not measures(result.config.mode, metric):
        return None
    if metric == "text_change":
        share = 1 / max(len(result.text), 1)
        ends = [(0, -share), (result.last, share)]
        return {(stage, task): weight for task in result.text for stage, weight in ends} or None
    if result.config.mode == "joint":
        return {(1, task): 1 / len(result.tasks) for task in result.tasks}
    a = result.matrix if at is None else [result.matrix[at]] * len(result.matrix)
    found = metrics.weights(metric, a)
    return None if found is None else {(t, result.tasks[i]): weight for (t, i), weight in found.items()}


def section(tests: Sequence[Test], metric: str, margin: float) -> list[Row]:
    """The rows of one metric, which are one family of tests; only ACC has rows where nothing can be compared."""
    if metric != "acc" and not any(test.values for test in tests):
        return []
    if metric not in TESTED:
        tests = [replace(test, found=None, lacks=test.lacks or UNTESTED) for test in tests]
    corrected = _corrected(tests, margin)
    rows = []
    for place, test in enumerate(tests):
        difference = number(*metrics.mean_and_sd(test.values), signed=True) if test.values else Value("-")
        cells = {
            "method": test.name,
            "metric": text(TITLES[metric]),
            "difference": difference.marked(UNTOUCHED if test.untouched and metric == "text_change" else ""),
            "verdict": text(test.lacks or NOT_KEPT),
            "seeds": count(len(test.values)),
        }
        if test.found:
            word, p, same, family = corrected[place]
            cells |= {
                "verdict": text(word, "bold" if word in ("better", "worse") else ""),
                "p": p_value(p),
                "p_equivalent": p_value(same),
                **_details(test.found, family, margin),
            }
        rows.append(cells_of(COLUMNS, cells, Value("-")))
    return rows


def _corrected(tests: Sequence[Test], margin: float) -> dict[int, tuple[str, float, float, int]]:
    """Place of a test -> its verdict, p of no difference and of no equivalence, by Holm, and the tests of its family.

    Tests of one seed, which have no verdict, are a family of their own.
    """
    found = {place: test.found for place, test in enumerate(tests) if test.found}
    corrected: dict[int, tuple[str, float, float, int]] = {}
    for several in (True, False):
        own = {place: one for place, one in found.items() if (one.seeds > 1) == several}
        p = stats.holm([one.p for one in own.values()])
        same = stats.holm([one.p_equivalent(margin) for one in own.values()])
        corrected |= {
            place: (stats.verdict(a, b, own[place]), a, b, len(own))
            for place, a, b in zip(own, p, same, strict=True)
        }
    return corrected


def _details(found: stats.Contrast, tests: int, margin: float) -> dict[str, Value]:
    level = stats.LEVEL / tests
    low, high = found.interval(level)
    return {
        "interval": Value(between=(low, high)),
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


Pair = tuple[Measure | None, Measure | None]


def _over_orders(experiment: Experiment, baseline: str, margin: float, reader: ItemReader) -> list[Table]:
    """The comparison in the mean over orders; none where no method shares two orders with the baseline."""
    groups = compared(experiment, baseline)
    tests = {}
    for metric in COMPARED:
        measured = Measured(reader, partial(metric_weights, metric))
        made = (
            _mean_test(measured, groups, method, baseline) for method in dict.fromkeys(m for m, _ in groups)
        )
        tests[metric] = [test for test in made if test]
    if not any(tests.values()):
        return []
    title = f"{experiment.label}: differences from {baseline}, mean over orders"
    return [_table(f"{experiment.label}-comparison-orders", title, tests, margin, [OVER_ORDERS])]


def _mean_test(measured: Measured, groups: Groups, method: str, baseline: str) -> Test | None:
    orders = {} if method == baseline else shared_orders(measured, groups, method, baseline)
    if len(orders) < 2 or not next(iter(orders.values())):
        return None
    found = mean_difference(orders)
    return found and Test(named(method, after=f" ({counted(len(orders), 'order')})"), *found)


def shared_orders(
    measured: Measured, groups: Groups, method: str, baseline: str
) -> dict[str, dict[int, Pair]]:
    """Order -> seed -> the metric of the method and the baseline; only seeds that both have in all these orders."""
    orders = {
        order: pairs
        for name, order in groups
        if name == method and (pairs := pairs_of(measured, groups, method, order, baseline))
    }
    common = set.intersection(*map(set, orders.values())) if orders else set()
    return {order: {seed: pairs[seed] for seed in sorted(common)} for order, pairs in orders.items()}


def mean_difference(
    orders: Mapping[str, Mapping[int, Pair]],
) -> tuple[list[float], stats.Contrast | None] | None:
    """The comparison in the mean over orders, as `differences` has it for one; None where a value is not known."""
    pairs: list[Pair] = []
    for seed in next(iter(orders.values())):
        mine, theirs = zip(*(pairs_of_order[seed] for pairs_of_order in orders.values()), strict=True)
        pairs.append((_mean(mine), _mean(theirs)))
    return differences(pairs)


def _mean(measures: Sequence[Measure | None]) -> Measure | None:
    known = [measure for measure in measures if measure is not None]
    if len(known) < len(measures):
        return None
    parts = [parts for _, parts in known if parts is not None]
    return fmean(value for value, _ in known), mean_parts(parts) if len(parts) == len(known) else None


def _missing_notes(experiment: Experiment) -> list[str]:
    """The runs that are not compared, in full or in part."""
    notes = [*backend_notes(experiment.results), *lacking_notes(experiment.results)]
    if notes and not all(result.has_items and not result.lacks for result in experiment.results):
        notes[0] = f"{notes[0]} Rows that need it are left out."
    return [*notes, *run_notes(experiment)]


def _notes(groups: Groups, tests: Sequence[Test], baseline: str, margin: float) -> list[str]:
    """What the columns mean."""
    notes = [
        f"diff.: the method minus {baseline}, mean (± standard deviation) over seeds, each paired with the same seed "
        "of the baseline. metric: a column of the forgetting table.",
        "interval: 95% for all tests of a metric together (Bonferroni). p: for no difference, corrected for them "
        "(Holm). Both count two sources of variance: seeds (t, seeds - 1 degrees of freedom) and items, clustered by "
        "image over all tasks (docs/statistics.md).",
        f"better, worse: p < 0.05. equivalent: two one-sided tests, also corrected, place the difference within "
        f"±{margin:g} (--margin), whatever its sign. undecided: neither. MDD: the smallest true difference found with "
        "80% power at the corrected level.",
    ]
    known = [test.found for test in tests if test.found]
    if any(test.lacks == UNTESTED for test in tests):
        notes.append(
            f"{UNTESTED}: FM (lower is better) takes the best row observed, so noise counts as forgetting; see BWT."
        )
    if any(found.collapsed for found in known):
        notes.append(
            f"collapse: undecided, and the runs of one of the two methods form two groups more than {stats.APART:g} "
            f"points, and {stats.TIMES:g} times the spread within them, apart."
        )
    if few := min((found.seeds for found in known if found.seeds > 1), default=0):
        rare = f"{100 * stats.unseen_collapses(few):.0f}%"
        notes.append(
            f"Verdicts are about runs like these: after {few} seeds without a collapse, up to {rare} of further runs "
            "may collapse (95% limit)."
        )
    if any(len(test.values) == 1 for test in tests):
        notes.append("items only: one seed says nothing about others; interval, p and MDD count items alone.")
    if any(test.lacks == NO_SCORE for test in tests):
        notes.append(f"{NO_SCORE}: of a run of the method or of {baseline}, in this metric.")
    if any(test.lacks == NO_SEED for test in tests):
        notes.append(
            f"{NO_SEED}: the method was not run with any seed of {baseline}, so nothing is compared."
        )
    if any(test.untouched for test in tests):
        notes += untouched_notes([one for group in groups.values() for one in group])
    if is_row_zero(baseline):
        notes.append(f"{baseline}: row 0 of the same run, in all stages.")
    return notes
