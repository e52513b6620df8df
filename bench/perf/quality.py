"""Speed and quality of the same settings side by side: what was measured of one and not of the other is left empty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from moextend.bench.perf.sizes import SIZES
from moextend.bench.perf.specs import key
from moextend.bench.perf.speed import Speed, Training
from moextend.bench.report.collect import Experiment, Result, collect, grouped, row_name
from moextend.bench.report.forgetting import summary
from moextend.bench.report.matched import short
from moextend.bench.report.table import Column, Table, Value, over_runs, text
from moextend.bench.run.rundir import find_runs
from moextend.bench.sequence import Base, find_sequence
from moextend.errors import InputError
from moextend.util import files

COLUMNS = [
    Column("method", "method", numeric=False),
    Column("params", "params", spread=""),
    Column("of_full", "step of full-ft", spread=""),
    Column("peak_of_full", "memory of full-ft", spread=""),
    Column("la", "LA"),
    Column("acc", "ACC"),
    Column("runs", "runs", spread=""),
]
NOTE = (
    "One row for each setting of which the step or the accuracy is measured: both are of exactly this setting. -: not "
    "measured. step, memory: as in the table of training. LA, ACC: of finished runs, as in the forgetting table. "
    "Methods that train alike, such as moextend's scopes own and auto, share a step; a learning rate changes no step."
)
NOTHING = Value("-")


def read(path: Path) -> list[Speed]:
    """Measurements that `--out` wrote; InputError if the file holds none."""
    try:
        return TypeAdapter(list[Speed]).validate_python(files.read_json(path))
    except ValueError as error:
        raise InputError(
            "holds no measurements.",
            where=str(path),
            hint="Write them: python -m moextend.bench.perf --out FILE.",
        ) from error


def quality_tables(measured: Speed, runs: Path) -> list[Table]:
    """A table for each sequence with the same base that has finished runs; none for a size without a sequence."""
    sequence = SIZES[measured.size].sequence
    if sequence is None:
        return []
    base = find_sequence(sequence, Path()).base
    found = [one for one in collect(find_runs(runs)) if one.of("sequence") and _is_on(one, base)]
    return [_table(measured, experiment) for experiment in found]


def _is_on(experiment: Experiment, base: Base) -> bool:
    """Whether the experiment has this language model."""
    own = experiment.shared["sequence"]["base"]
    upcycle = base.upcycle.model_dump(mode="json") if base.upcycle else None
    return bool(own["model"] == base.model and own.get("upcycle") == upcycle)


def _table(measured: Speed, experiment: Experiment) -> Table:
    steps = {row.key: row for row in measured.training if row.name == row.spec}
    groups: dict[str, list[Sequence[Result]]] = {}
    for group in grouped(experiment.of("sequence")).values():
        groups.setdefault(key(group[0].config.parsed_method()), []).append(group)
    rows = [
        row
        for known in dict.fromkeys([*steps, *groups])
        for row in _rows(steps.get(known), groups.get(known))
    ]
    return Table(
        f"{measured.size}-quality",
        f"{measured.size}: speed and quality ({experiment.label})",
        COLUMNS,
        [rows],
        [NOTE],
        kind="costs",
    )


def _rows(step: Training | None, groups: Sequence[Sequence[Result]] | None) -> list[list[Value]]:
    """A row for each group of runs with the step, or one of the step alone."""
    if not groups:
        return [[text(step.spec), *_speed(step), *[NOTHING] * 3]] if step else []
    return [[row_name(group), *_speed(step, group), *_quality(group)] for group in groups]


def _speed(step: Training | None, group: Sequence[Result] = ()) -> list[Value]:
    trained = [cost.trained_parameters for result in group for cost in result.costs.values()]
    count = (
        step.trained_parameters if step else max((one for one in trained if one is not None), default=None)
    )
    params = NOTHING if count is None else Value(short(count), count)
    if step is None:
        return [params, NOTHING, NOTHING]
    return [params, *(Value(f"{part:.2f}x", part) for part in (step.of_full, step.peak_of_full))]


def _quality(group: Sequence[Result]) -> list[Value]:
    found = [summary(result) for result in group]
    means = [over_runs(each[name] for each in found) for name in ("la", "acc")]
    return [*means, Value(str(len(group)), len(group))]
