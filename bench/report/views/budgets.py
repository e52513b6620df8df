"""Cost to equal quality: what each method costs until it reaches the same accuracy, from runs with several steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from statistics import fmean
from typing import Any

from moextend.bench import methods, metrics
from moextend.bench.report.collect import Experiment, Result, alike, run_notes
from moextend.bench.report.notes import seeds_note
from moextend.bench.report.table import (
    Column,
    Row,
    Table,
    Value,
    count,
    fixed,
    named,
    number,
    plain,
    short,
    words_column,
)
from moextend.bench.report.views import Asked
from moextend.bench.report.views.costs import total, training_flops
from moextend.bench.stats.reaching import Place, at, common_score, over_seeds, reached
from moextend.errors import UnknownName, counted
from moextend.util import files

COSTS = {"flops": "TFLOP", "seconds": "seconds"}
"""Costs of a run -> their columns."""
NOTE = (
    "Least cost at which a method reaches the accuracy (LA, the mean accuracy on each task right after it was "
    "learned), by straight lines between its numbers of steps; each number of steps is a training of its own with its "
    "own schedule. steps: of a stage. TFLOP, seconds: of the whole run, the alignment of projectors and the probe of "
    "layers included, scoring not; seconds are those of the machine. best: highest accuracy over the numbers of steps."
)
INTERVAL = ("_interval", "_low", "_high")
"""Ends of the keys of columns of intervals, which need several seeds."""
Curve = list[Result]
"""Runs of one method, order and seed, from the fewest steps on."""
Curves = dict[tuple[str, str], dict[int, Curve]]
"""(method, order) -> seed -> curve."""


@dataclass(frozen=True)
class Reached:
    """Where a curve reaches the accuracy, and what it costs there."""

    steps: float
    costs: Mapping[str, float | None]
    place: Place


@dataclass(frozen=True)
class Family:
    """Experiments that differ in their numbers of steps only."""

    experiments: Sequence[Experiment]
    curves: Curves
    others: Sequence[str] = ()
    """Runs that were made of something else."""

    @cached_property
    def target(self) -> float:
        """Highest accuracy that every curve reaches."""
        return common_score([_scores(curve) for seeds in self.curves.values() for curve in seeds.values()])


def tables(experiments: Sequence[Experiment], asked: Asked) -> list[Table]:
    """One table a sequence that ran with several numbers of steps; others have none.

    Costs are compared with the baseline's, by default those of full fine-tuning, or of the first method.

    Raises:
        UnknownName: the baseline has no runs.
    """
    return [_table(family, asked.accuracy, asked.baseline) for family in families(experiments)]


def families(experiments: Sequence[Experiment]) -> list[Family]:
    """Experiments by everything but their numbers of steps, made of the same; those with one number are left out."""
    found: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        found.setdefault(files.digest(_without_steps(experiment.shared)), []).append(experiment)
    families = []
    for group in found.values():
        every = [result for experiment in group for result in experiment.results]
        for _, results in alike(every):
            own = [replace(one, results=[r for r in one.results if r in results]) for one in group]
            own = [experiment for experiment in own if experiment.results]
            others = [str(result.run.folder) for result in every if result not in results]
            families += [Family(own, _curves(own), others)] if len(own) > 1 else []
    return families


def _without_steps(shared: Mapping[str, Any]) -> dict[str, Any]:
    sequence = dict(shared["sequence"])
    sequence["train"] = {**sequence["train"], "steps": None}
    sequence["stages"] = [{**stage, "steps": None} for stage in sequence["stages"]]
    return {**shared, "sequence": sequence}


def _curves(experiments: Sequence[Experiment]) -> Curves:
    found: Curves = {}
    results = [result for experiment in experiments for result in experiment.of("sequence")]
    for result in sorted(results, key=_steps):
        config = result.config
        if methods.role_of(config.method) != "base" and _score(result) is not None:
            own = found.setdefault((config.method, config.order), {})
            own.setdefault(config.seed, []).append(result)
    return found


def _steps(result: Result) -> float:
    """Mean steps of a stage."""
    sequence = result.config.sequence
    return fmean(stage.get("steps") or sequence["train"]["steps"] for stage in sequence["stages"])


def _score(result: Result) -> float | None:
    return metrics.mft(result.matrix)


def _scores(curve: Curve) -> list[float]:
    return [score for result in curve if (score := _score(result)) is not None]


def run_costs(result: Result) -> dict[str, float | None]:
    """Costs of a whole run, alignments included; None where one is not known."""
    aligned = [one for cost in result.costs.values() for one in cost.alignments.values()]
    flops = [total(result, training_flops), *(one.flops for one in aligned)]
    seconds = [total(result, attrgetter("seconds")), *(one.seconds for one in aligned)]
    return {"flops": _sum(flops), "seconds": _sum(seconds)}


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def reaching(curve: Curve, accuracy: float) -> Reached | None:
    """Where a curve first reaches the accuracy; None: nowhere."""
    place = reached(_scores(curve), accuracy)
    if place is None:
        return None
    costs = {}
    for name in COSTS:
        values = [run_costs(result)[name] for result in curve]
        known = [value for value in values if value is not None]
        costs[name] = at(known, place) if len(known) == len(values) else None
    return Reached(at([_steps(result) for result in curve], place), costs, place)


def _table(family: Family, accuracy: float | None, baseline: str | None) -> Table:
    target = family.target if accuracy is None else accuracy
    found = {
        key: {seed: reaching(curve, target) for seed, curve in seeds.items()}
        for key, seeds in family.curves.items()
    }
    against = _baseline(family.curves, baseline)
    rows = [_row(family.curves[key], key, found, against, target) for key in family.curves]
    several = any(len(seeds) > 1 for seeds in family.curves.values())
    name, columns = family.experiments[0].name, _columns(against)
    notes = [NOTE, *_notes(family, found, several=several)]
    title = f"{name}: cost to an accuracy of {target:.1f}"
    made = Table(f"{name}-budgets", title, columns, [rows], notes, kind="budgets")
    kept = [place for place, column in enumerate(columns) if several or not column.key.endswith(INTERVAL)]
    return made.of_columns(kept)


def _columns(against: str) -> list[Column]:
    columns = [words_column("method"), plain("steps")]
    for key, title in COSTS.items():
        columns += [
            plain(key, title),
            plain(f"{key}_ratio", f"of {against}"),
            Column(f"{key}_interval", "interval", numeric=False, machines=False),
            plain(f"{key}_ratio_low", "from", wide=True),
            plain(f"{key}_ratio_high", "to", wide=True),
        ]
    columns += [Column("best", "best"), plain("seeds", wide=True), plain("accuracy", wide=True)]
    return [*columns, plain("reached", "reached by", wide=True), words_column("bound", "cost is", wide=True)]


def _baseline(curves: Curves, baseline: str | None) -> str:
    known = list(dict.fromkeys(method for method, _ in curves))
    if baseline is not None and baseline not in known:
        raise UnknownName("method", baseline, known, where="--baseline")
    bounds = (method for method in known if methods.role_of(method) == "bound")
    return baseline or next(bounds, known[0])


Found = Mapping[tuple[str, str], Mapping[int, Reached | None]]


def _row(
    seeds: Mapping[int, Curve], key: tuple[str, str], found: Found, against: str, accuracy: float
) -> Row:
    method, order = key
    best = number(*metrics.mean_and_sd(max(_scores(curve)) for curve in seeds.values()))
    name = named(method, after="" if order == "given" else f" ({order})")
    own = {seed: one for seed, one in found[key].items() if one is not None}
    bound = Value("at most" if _at_most(own) else "")
    end = [best, count(len(seeds)), number(accuracy), count(len(own)), bound]
    if len(own) < len(seeds):
        how = "not reached" if not own else f"{len(own)} of {counted(len(seeds), 'seed')}"
        return [name, Value(how), *[Value("-")] * (5 * len(COSTS)), *end]
    steps = replace(fixed(fmean(one.steps for one in own.values()), ".0f"), before=_at_most(own))
    others = found.get((against, order), {})
    base = {seed: one for seed in own if (one := others.get(seed)) is not None}
    costs = [value for cost in COSTS for value in _cost_cells(cost, own, base)]
    return [name, steps, *costs, *end]


def _at_most(found: Mapping[int, Reached]) -> str:
    """Mark of costs that are an upper bound: the fewest steps reach the accuracy already."""
    return "≤ " if any(one.place.is_first for one in found.values()) else ""


def _cost_cells(cost: str, own: Mapping[int, Reached], base: Mapping[int, Reached]) -> Row:
    """The cost, as a multiple of the baseline's of the same seeds, and the interval of that."""
    spent, others, nothing = _known(cost, own), _known(cost, base), Value("-")
    if spent is None:
        return [nothing] * 5
    mean = (1e-12 if cost == "flops" else 1.0) * over_seeds(list(spent.values())).mean
    shown = short(mean, _at_most(own))
    if others is None or others.keys() != spent.keys():
        return [shown, *[nothing] * 4]
    ratio = over_seeds([spent[seed] / others[seed] for seed in spent])
    multiple, bounds = fixed(ratio.mean, ".2f", "x"), (_at_most(own), _at_most(base).replace("≤", "≥"))
    if own == base:
        return [shown, multiple, *[nothing] * 3]
    if any(bounds):
        multiple = nothing if all(bounds) else replace(multiple, before="".join(bounds))
        return [shown, multiple, *[nothing] * 3]
    between = "-" if ratio.low is None else f"{ratio.low:.2f} to {ratio.high:.2f}"
    return [shown, multiple, Value(between), fixed(ratio.low, ".2f"), fixed(ratio.high, ".2f")]


def _known(cost: str, found: Mapping[int, Reached]) -> dict[int, float] | None:
    """Seed -> cost; None if one is not known."""
    known = {seed: value for seed, one in found.items() if (value := one.costs[cost]) is not None}
    return known if known and len(known) == len(found) else None


def _aligned_flops(result: Result) -> float | None:
    return _sum([one.flops for cost in result.costs.values() for one in cost.alignments.values()])


def _notes(family: Family, found: Found, *, several: bool) -> list[str]:
    curves = [curve for seeds in family.curves.values() for curve in seeds.values()]
    reached = [one for seeds in found.values() for one in seeds.values()]
    steps = ", ".join(f"{count:g}" for count in sorted({_steps(run) for curve in curves for run in curve}))
    notes = [f"Steps: {steps}. {seeds_note(family.experiments[0])}"]
    if aligned := [flops for curve in curves if (flops := _aligned_flops(curve[0]))]:
        cost = short(1e-12 * fmean(aligned)).text
        notes.append(f"The alignment, the same for all methods, is {cost} TFLOP of each cost.")
    if any(one and one.place.is_first for one in reached):
        notes.append("≤, ≥: bounds: the accuracy is reached with the fewest steps; fewer might do.")
    if None in reached:
        notes.append("not reached: not with the most steps; N of M seeds: with these seeds only.")
    uneven = [
        method
        for (method, _), seeds in family.curves.items()
        if len({tuple(map(_steps, curve)) for curve in seeds.values()}) > 1
    ]
    if uneven:
        notes.append(f"NOT COMPARABLE: not every seed has every number of steps: {', '.join(uneven)}.")
    if family.others:
        notes.append(f"Made of something else, and no part of this table: {', '.join(family.others)}.")
    if several:
        notes.append(
            "Over seeds: geometric means; interval: 95%, of the multiple, each seed against the same seed of the "
            "baseline (t on logarithms). With few seeds it is wide."
        )
    return [*notes, *(note for one in family.experiments for note in run_notes(one))]
