"""What a comparison of methods holds fixed: trained parameters, beside bytes kept and operations of the training."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from moextend.bench import metrics
from moextend.bench.report.collect import Experiment, Result, grouped
from moextend.bench.report.costs import (
    KEPT,
    NEAR,
    UNMATCHED,
    kept_mb,
    mean_total,
    near,
    reference_of,
    trained_parameters,
    training_flops,
)
from moextend.bench.report.table import Column, Value
from moextend.errors import InputError

COLUMNS = [
    Column("params", "params", paper=False),
    Column("kept_mb", "MB", paper=False),
    Column("tflop", "TFLOP", paper=False),
]
MEANING = (
    f"params: parameters that a stage trains (the largest stage). {KEPT} TFLOP: operations of all trainings, probes "
    "included."
)
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short(number: float) -> str:
    """A number of at least 0 with up to three digits: 757k, 1.25M, 4.20, 0.59."""
    rounded = float(f"{number:.3g}")
    unit, letter = next((pair for pair in UNITS if rounded >= pair[0]), (1.0, ""))
    shown = rounded / unit
    decimals = 0 if shown >= 100 or not shown else 1 if shown >= 10 else 2
    return f"{shown:.{decimals}f}{letter}" if shown >= 1 or not shown else f"{shown:#.2g}"


def costs(group: Sequence[Result], reference: float | None = None) -> list[Value]:
    """Cells of COLUMNS for the runs of a row; trained parameters far from those of the `reference` are marked."""
    trained = trained_parameters(group).number
    kept = metrics.average(map(kept_mb, group))
    cells = [_cell(trained), _cell(kept), _cell(mean_total(group, training_flops, 1e-12))]
    return [cells[0].marked(UNMATCHED) if _differs(trained, reference) else cells[0], *cells[1:]]


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
    far = [method for method in others if _differs(counts[method], wanted)]
    if not far:
        return [MEANING, f"Trained parameters are matched: all are {against}."]
    fixed = [method for method in far if _is_fixed(groups, method)]
    loose = [method for method in far if method not in fixed]
    found = [f"{UNMATCHED}: trained parameters are not {against}."]
    if fixed:
        found.append(f"{', '.join(fixed)}: cannot be matched.")
    if loose:
        found.append(f"NOT MATCHED: {', '.join(loose)} (moextend bench run --match params).")
    return [MEANING, " ".join(found)]


def _is_fixed(groups: dict[tuple[str, str], list[Result]], method: str) -> bool:
    """Whether no setting of the method changes how much it trains."""
    config = next(group[0].config for (name, _), group in groups.items() if name == method)
    with suppress(InputError):  # a plug-in that is gone
        return not config.parsed_method().make().knobs
    return False


def _differs(count: float | None, reference: float | None) -> bool:
    return bool(count) and reference is not None and not near(count, reference)


def _cell(number: float | None) -> Value:
    return Value("-") if number is None else Value(short(number), number)
