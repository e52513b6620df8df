"""What each method costs: to learn a stage, to keep it, and to answer with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from moextend.bench import methods, metrics
from moextend.bench.report.collect import Experiment, Result, grouped, row_name
from moextend.bench.report.table import Column, Table, Value, cells_of, fixed, short, words_column
from moextend.bench.report.views import Asked
from moextend.bench.run.records import AlignmentCost, StageCost
from moextend.errors import counted

COLUMNS = [
    words_column("method"),
    Column("trained_parameters", "trained"),
    Column("kept_mb", "MB"),
    Column("tokens", "tokens"),
    Column("flops", "TFLOP"),
    Column("forward", "forward"),
    Column("seconds", "seconds"),
    Column("peak_rss_mb", "peak MiB"),
    Column("peak_gpu_mb", "GPU MiB", wide=True),
]
MATCHED = ("trained_parameters", "tokens", "flops")
"""Columns in which methods are compared with the reference."""
NEAR = 0.1
"""Parts by which two numbers may differ and still count as matched."""
UNMATCHED = "≠"
"""Marks a number that is not."""

KEPT = (
    "MB: what is kept after the last stage besides the base: weights, memories and raw data that inference or a next "
    "stage needs."
)
NOTE = (
    f"Of a whole run, mean over runs. trained: parameters of the largest stage. {KEPT} tokens: seen in training, "
    "without padding. TFLOP: of all trainings, probes included. forward: operations per token for answering the last "
    "stage's task after it, relative to the base. seconds: of learning; they depend on what else ran on the "
    "machine. peak: of the run's process, including the base; GPU: of learning."
)
SUMMARY = [
    Column("params", "params", paper=False),
    Column("kept_mb", "MB", paper=False),
    Column("tflop", "TFLOP", paper=False),
]
"""Columns of costs in the forgetting table."""
MEANING = (
    f"params: parameters that a stage trains (the largest stage). {KEPT} TFLOP: operations of all trainings, probes "
    "included."
)


def tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """What each method costs."""
    return [costs_table(experiment)]


def costs_table(experiment: Experiment) -> Table:
    """One row per method; what is not matched with the reference (without one, the first method) is marked."""
    groups, reference = grouped(experiment.of("sequence")), reference_of(experiment)
    cells = {key: _cells(group) for key, group in groups.items()}
    first = cells[reference] if reference else {}
    rows = [
        cells_of(
            COLUMNS, {"method": row_name(group)} | {k: _marked(v, first, k) for k, v in cells[key].items()}
        )
        for key, group in groups.items()
    ]
    notes = [NOTE]
    if reference and len(rows) > 1:
        notes.append(
            f"{UNMATCHED}: more than {NEAR:.0%} from {reference[0]}'s: not matched in this "
            "(moextend bench run --match)."
        )
    notes += [*_shared(experiment), *_alignments(experiment), *_total(experiment)]
    name = experiment.label
    return Table(f"{name}-costs", f"{name}: costs", COLUMNS, [rows], notes, kind="costs")


def _cells(group: Sequence[Result]) -> dict[str, Value]:
    def mean(measure: Callable[[Result], float | None]) -> float | None:
        return metrics.average(map(measure, group))

    return {
        "trained_parameters": trained_parameters(group),
        "kept_mb": fixed(mean(kept_mb), ".2f"),
        "tokens": fixed(mean_total(group, attrgetter("tokens")), ",.0f"),
        "flops": fixed(mean_total(group, training_flops, 1e-12), ".2f"),
        "forward": fixed(mean(_forward), ".2f", "x"),
        "seconds": fixed(mean_total(group, attrgetter("seconds")), ".0f"),
        "peak_rss_mb": fixed(mean(lambda result: _most(result, attrgetter("peak_rss_mb"))), ".0f"),
        "peak_gpu_mb": fixed(mean(lambda result: _most(result, attrgetter("peak_gpu_mb"))), ".0f"),
    }


def _marked(value: Value, first: dict[str, Value], key: str) -> Value:
    other = first[key].number if first and key in MATCHED else None
    apart = None not in (value.number, other) and not near(value.number, other)
    return value.marked(f" {UNMATCHED}") if apart else value


def _shared(experiment: Experiment) -> list[str]:
    """How many stages another run trained."""
    costs = [cost for result in experiment.of("sequence") for cost in result.costs.values()]
    shared = [cost for cost in costs if cost.trained_by is not None]
    if not shared:
        return []
    return [
        f"{len(shared)} of {counted(len(costs), 'stage')} were trained by another run with the same past and "
        "settings, and shared (trained_by in cost.json): tokens, TFLOP, seconds and peak are those of the training, "
        "as if each run had trained it."
    ]


def _alignments(experiment: Experiment) -> list[str]:
    """What the alignment of projectors costs, of the first run that recorded it."""
    for result in experiment.of("sequence"):
        found = [
            f"{modality} at stage {stage} ({one.task}, {_spent(one)})"
            for stage, cost in sorted(result.costs.items())
            for modality, one in cost.alignments.items()
        ]
        if found:
            return [
                f"On top, once for all methods of a seed, the alignment of projectors: {'; '.join(found)}."
            ]
    return []


def _spent(one: AlignmentCost) -> str:
    operations = "" if one.flops is None else f", {1e-12 * one.flops:.2f} TFLOP"
    return f"{one.steps:,} steps{operations}"


def _total(experiment: Experiment) -> list[str]:
    """Time of all runs, of every mode; what runs share counts once."""
    learned, aligned = dict[tuple[str, int], float](), set[tuple[str, float]]()
    for result in experiment.results:
        for stage, cost in result.costs.items():
            learned[cost.trained_by or f"{experiment.name}/{result.name}", stage] = cost.seconds or 0.0
            # Each run of a seed records the same alignment.
            aligned |= {(one.task, one.seconds or 0.0) for one in cost.alignments.values()}
    learning, aligning = sum(learned.values()), sum(seconds for _, seconds in aligned)
    scoring = sum(cell.seconds for result in experiment.results for cell in result.cells.values())
    if not learning + aligning + scoring:
        return []
    runs = counted(len(experiment.results), "run")
    return [
        f"In all, {runs}: {_time(learning)} of learning, {_time(aligning)} of alignment, {_time(scoring)} of scoring; "
        "what runs share counts once."
    ]


def _time(seconds: float) -> str:
    """A duration in hours, below one hour in minutes."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def reference_of(experiment: Experiment) -> tuple[str, str] | None:
    """The (method, order) that others are matched with: of role `reference`, without one the first.

    Of several references it is the one that trains as many parameters as most methods; of equal ones the first.
    """
    groups = grouped(experiment.of("sequence"))
    references = [key for key in groups if methods.role_of(key[0]) == "reference"]
    if not references:
        return next(iter(groups), None)
    counts = {key: trained_parameters(group).number for key, group in groups.items()}
    return max(references, key=lambda key: sum(near(count, counts[key]) for count in counts.values()))


def near(number: float | None, other: float | None) -> bool:
    """Whether a number counts as matched with another one."""
    return number is not None and other is not None and abs(number - other) <= NEAR * abs(other)


What = Callable[[StageCost], float | None]


def total(result: Result, what: What) -> float | None:
    """Of all stages of a run; None if one is not known."""
    found = [number for cost in result.costs.values() if (number := what(cost)) is not None]
    return sum(found) if len(found) == result.last else None


def kept_mb(result: Result) -> float | None:
    """MB that are kept after the last stage."""
    cost = result.costs.get(result.last)
    return cost.kept_mb if cost else None


def mean_total(group: Sequence[Result], what: What, unit: float = 1.0) -> float | None:
    """Mean over runs of the `total`, in a unit; None if one is not known."""
    mean = metrics.average(total(result, what) for result in group)
    return None if mean is None else unit * mean


def _most(result: Result, what: What) -> float | None:
    return max((number for cost in result.costs.values() if (number := what(cost)) is not None), default=None)


def training_flops(cost: StageCost) -> float | None:
    """Operations of a stage's training and of its probe; None if they are not known."""
    if cost.flops is None or (cost.change and cost.probe_flops is None):
        return None
    return cost.flops + (cost.probe_flops or 0.0)


def trained_parameters(group: Sequence[Result]) -> Value:
    """Of a stage, the most of any."""
    known = [_most(result, attrgetter("trained_parameters")) for result in group]
    return fixed(max((most for most in known if most is not None), default=None), ",.0f")


def _forward(result: Result) -> float | None:
    """Operations of answering after the last stage, as a multiple of the base's."""
    before = (result.facts.base_flops or {}).get(result.stage_names[-1])
    now = result.costs[result.last].forward_flops if result.last in result.costs else None
    return now / before if now and before else None


def summary_cells(group: Sequence[Result], reference: float | None = None) -> dict[str, Value]:
    """Cells of SUMMARY for the runs of a row; trained parameters far from those of the `reference` are marked."""
    trained = trained_parameters(group).number
    known = [trained, metrics.average(map(kept_mb, group)), mean_total(group, training_flops, 1e-12)]
    cells = {c.key: Value("-") if one is None else short(one) for c, one in zip(SUMMARY, known, strict=True)}
    return cells | ({"params": cells["params"].marked(UNMATCHED)} if _is_apart(trained, reference) else {})


def reference_count(experiment: Experiment) -> float | None:
    """Trained parameters of the method that others are matched with; None if they are not known."""
    reference = reference_of(experiment)
    return trained_parameters(grouped(experiment.of("sequence"))[reference]).number if reference else None


def matched_notes(experiment: Experiment) -> list[str]:
    """What the columns mean, and which methods are not matched in trained parameters; [] where nothing is known."""
    reference, wanted = reference_of(experiment), reference_count(experiment)
    if reference is None or wanted is None:
        return []
    groups = grouped(experiment.of("sequence"))
    counts = {method: trained_parameters(group).number for (method, _), group in groups.items()}
    others = [method for method, count in counts.items() if count and method != reference[0]]
    if not others:
        return [MEANING]
    against = f"within {NEAR:.0%} of {reference[0]}'s {wanted:,.0f}"
    far = [method for method in others if _is_apart(counts[method], wanted)]
    if not far:
        return [MEANING, f"Trained parameters are matched: all are {against}."]
    how = "moextend bench run --match params, for methods that have a size"
    return [MEANING, f"{UNMATCHED}: trained parameters are not {against}: {', '.join(far)} ({how})."]


def _is_apart(count: float | None, reference: float | None) -> bool:
    return bool(count) and reference is not None and not near(count, reference)
