"""What each method costs: to learn a stage, to keep it, and to answer with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from moextend.bench import methods, metrics
from moextend.bench.report.collect import Experiment, Result, grouped, row_name
from moextend.bench.report.table import Column, Table, Value
from moextend.bench.run.records import AlignmentCost, StageCost
from moextend.errors import counted

COLUMNS = [
    Column("method", "method", numeric=False),
    Column("trained_parameters", "trained"),
    Column("kept_mb", "MB"),
    Column("tokens", "tokens"),
    Column("flops", "TFLOP"),
    Column("forward", "forward"),
    Column("seconds", "seconds"),
    Column("peak_rss_mb", "peak MiB"),
    Column("peak_gpu_mb", "GPU MiB", wide=True),
]
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
    "without padding. TFLOP: of all trainings, probes included. forward: operations per token for answering a stage's "
    "task after it, relative to the base, mean over stages. seconds: of learning; they depend on what else ran on the "
    "machine. peak: of the run's process, including the base; GPU: of learning."
)


def costs_table(experiment: Experiment) -> Table:
    """One row per method; what is not matched with the reference (without one, the first method) is marked."""
    groups = grouped(experiment.of("sequence"))
    reference = reference_of(experiment)
    first = _row(groups[reference], None) if reference else []
    rows: list[list[Value]] = []
    for group in groups.values():
        rows.append([row_name(group), *_row(group, first)])
    notes = [NOTE]
    if reference and len(rows) > 1:
        notes.append(
            f"{UNMATCHED}: more than {NEAR:.0%} from {reference[0]}'s: not matched in this "
            "(moextend bench run --match)."
        )
    notes += [*_shared(experiment), *_alignments(experiment), *_total(experiment)]
    name = experiment.name
    return Table(f"{name}-costs", f"{name}: costs", COLUMNS, [rows], notes, kind="costs")


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
            for modality, one in cost.align.items()
        ]
        if found:
            return [
                f"On top, once for all methods of a seed, the alignment of projectors: {'; '.join(found)}."
            ]
    return []


def _spent(one: AlignmentCost) -> str:
    parts = [
        f"{one.steps:,} steps",
        "" if one.tokens is None else f"{one.tokens:,} tokens",
        "" if one.flops is None else f"{1e-12 * one.flops:.2f} TFLOP",
        "" if one.seconds is None else f"{one.seconds:.0f} s",
    ]
    return ", ".join(filter(None, parts))


def _total(experiment: Experiment) -> list[str]:
    """Time of all runs, of every mode; what runs share counts once."""
    learned, aligned = dict[tuple[str, int], float](), set[tuple[str, float]]()
    for result in experiment.results:
        for stage, cost in result.costs.items():
            learned[cost.trained_by or f"{experiment.name}/{result.name}", stage] = cost.seconds or 0.0
            # Each run of a seed records the same alignment.
            aligned |= {(one.task, one.seconds or 0.0) for one in cost.align.values()}
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


def unmatched(experiment: Experiment) -> dict[str, list[str]]:
    """Column -> the methods that differ in it from the one that they are matched with."""
    table = costs_table(experiment)
    found = {
        column.key: list(
            dict.fromkeys(row[0].of for row in table.sections[0] if row[place].text.endswith(UNMATCHED))
        )
        for place, column in enumerate(table.columns)
    }
    return {key: methods for key, methods in found.items() if methods}


def _row(group: Sequence[Result], first: Sequence[Value] | None) -> list[Value]:
    values = [
        trained_parameters(group),
        _value(metrics.average(map(kept_mb, group)), "{:.2f}"),
        _value(mean_total(group, attrgetter("tokens")), "{:,.0f}"),
        _value(mean_total(group, training_flops, 1e-12), "{:.2f}"),
        _value(metrics.average(_forward(result) for result in group), "{:.2f}x"),
        _value(mean_total(group, attrgetter("seconds")), "{:.0f}"),
        *(
            _value(metrics.average(_most(result, attrgetter(peak)) for result in group), "{:.0f}")
            for peak in ("peak_rss_mb", "peak_gpu_mb")
        ),
    ]
    matched = {"trained_parameters", "tokens", "flops"}
    return [
        _marked(value, first[place].number if first and column.key in matched else None)
        for place, (column, value) in enumerate(zip(COLUMNS[1:], values, strict=True))
    ]


def _marked(value: Value, other: float | None) -> Value:
    if value.number is None or other is None or near(value.number, other):
        return value
    return value.marked(f" {UNMATCHED}")


def _value(number: float | None, form: str) -> Value:
    return Value("-") if number is None else Value(form.format(number), number)


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
    known = [
        most for result in group if (most := _most(result, attrgetter("trained_parameters"))) is not None
    ]
    return _value(max(known, default=None), "{:,.0f}")


def _forward(result: Result) -> float | None:
    """Operations of answering, as a multiple of the base's, mean over stages."""
    base, names = result.facts.base_flops or {}, result.stage_names
    known = [(cost.forward_flops, base.get(names[stage - 1])) for stage, cost in result.costs.items()]
    return metrics.average(now / before if now and before else None for now, before in known)
