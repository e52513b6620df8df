"""Routing after every stage: which new experts each learned task reaches, and its drift since it was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from moextend.bench import metrics
from moextend.bench.report.collect import Experiment, Result, damaged_run
from moextend.bench.report.table import WIDTH, Column, Table, Value, named, number, text
from moextend.bench.run.records import RoutingReport, TaskRouting
from moextend.errors import InputError

NOTE = (
    "Rows: the stage, and a task learned by then ((text): the sequence's generic text). Columns: per cent of the "
    "task's tokens that reach the new experts of each extension, mean over layers that have some. KL: divergence of "
    "the task's choices of experts from those at the stage where it was learned, in thousandths of a nat, mean over "
    "layers and the largest. On held-out training items."
)
INFERRED = (
    "Rows: the stage, and a task of the sequence, learned by then or not ((text): the sequence's generic text). "
    "Columns: per cent of its inputs that reach each extension, and none (the base answers). Inputs of a learned task "
    "are training items that its statistics were not made from."
)
ORACLE = "oracle: score with only the task's own extension active; final: as it is."

Stages = Mapping[int, RoutingReport]


def routing_tables(experiment: Experiment) -> list[Table]:
    """One table per run whose routing was looked at; InputError if all that is known is damaged."""
    shown, inferred, damaged = list[Table](), list[Table](), list[str]()
    for result in experiment.results:
        try:
            stages = result.run.routing()
            shown += [_table(experiment, result, stages)] if stages else []
            inferred += [_inferred(experiment, result, stages)] if _infers(stages) else []
        except Exception as error:
            damaged.append(damaged_run(result.run, error))
    found = [replace(table, notes=[NOTE, *table.notes]) for table in shown[:1]] + shown[1:] + inferred
    if damaged and not found:
        raise InputError(
            f"no run is complete: {'; '.join(damaged)}.", where="report routing", hint="Run again."
        )
    if damaged:
        found[0] = replace(found[0], notes=[*found[0].notes, f"Left out: {'; '.join(damaged)}."])
    return found


def _infers(stages: Stages) -> bool:
    return any(stage.inferred for stage in stages.values())


def _inferred(experiment: Experiment, result: Result, stages: Stages) -> Table:
    """Which extension the inputs of every task are taken for, stage by stage."""
    kept = {stage: found.inferred for stage, found in sorted(stages.items()) if found.inferred}
    extensions = [name for name in result.tasks if any(name in known.rejected for known in kept.values())]
    columns = [Column("stage", "stage", numeric=False), Column("task", "task", numeric=False)]
    columns += [Column("none", "none")] + [
        Column(f"reaches_{name}", str(result.tasks.index(name) + 1)) for name in extensions
    ]
    sections = [
        [
            [text(str(stage)), named(task)]
            + [number(100 * row.reached.get(name, 0.0)) for name in ("", *extensions)]
            for task, row in known.tasks.items()
        ]
        for stage, known in kept.items()
    ]
    promised = max(share for known in kept.values() for share in known.rejected.values())
    notes = [
        INFERRED,
        "Columns: the extensions by the number of their stage.",
        f"A threshold rejects at most {100 * promised:.1f}% of an extension's own inputs in expectation.",
    ]
    name = f"{experiment.name}/{result.name}"
    return Table(f"{name}-inferred", f"{name}: task inference", columns, sections, notes, kind="routing")


def _table(experiment: Experiment, result: Result, stages: Stages) -> Table:
    reached = [_reached(row) for stage in stages.values() for row in stage.tasks.values()]
    extensions = [name for name in result.tasks if any(name in row for row in reached)]
    with_names = len("stage task") + sum(map(len, [*result.tasks, *extensions])) + 30 <= WIDTH
    oracle = any(stage.oracle for stage in stages.values())
    columns = [Column("stage", "stage", numeric=False), Column("task", "task", numeric=False)]
    columns += [
        Column(f"reaches_{name}", name if with_names else str(result.tasks.index(name) + 1))
        for name in extensions
    ]
    columns += [Column("kl", "KL"), Column("kl_most", "most")]
    columns += [Column("final", "final"), Column("oracle", "oracle")] if oracle else []
    sections = [
        [
            _row(result, stages, stage, name, kept, extensions, oracle)
            for name, kept in stages[stage].tasks.items()
        ]
        for stage in sorted(stages)
    ]
    notes = [] if with_names else ["Columns: the tasks by the number of their stage."]
    notes += [ORACLE] if oracle else []
    notes += [_layers(stage, stages[stage]) for stage in sorted(stages) if stages[stage].layers is not None]
    name = f"{experiment.name}/{result.name}"
    return Table(f"{name}-routing", f"{name}: routing", columns, sections, notes, kind="routing")


def _row(
    result: Result,
    stages: Stages,
    stage: int,
    name: str,
    kept: TaskRouting,
    extensions: Sequence[str],
    oracle: bool,
) -> list[Value]:
    reached, drift = _reached(kept), kept.drift or []
    values = [number(100 * reached[other] if other in reached else 0.0) for other in extensions]
    values += [number(metrics.average(1000 * kl for kl in drift)), number(_most(drift))]
    if oracle:
        cell = result.cells.get((stage, name))
        forced = (stages[stage].oracle or {}).get(name)
        values += [number(cell.value if cell else None), number(forced)]
    return [text(str(stage)), named(name), *values]


def _most(drift: Sequence[float]) -> float | None:
    return max((1000 * kl for kl in drift), default=None)


def _reached(kept: TaskRouting) -> dict[str, float]:
    """Extension -> share of tokens that reach it, mean over the blocks that have it."""
    found: dict[str, list[float]] = {}
    for block in kept.reached:
        for name, share in block.items():
            found.setdefault(name, []).append(share)
    return {name: sum(shares) / len(shares) for name, shares in found.items()}


def _layers(stage: int, kept: RoutingReport) -> str:
    """Which layers got new experts, and why."""
    layers, change = kept.layers or [], kept.change or []
    words = f"Stage {stage}: new experts in layers {', '.join(map(str, layers))}"
    if change:
        words += f"; d_j of layers 0 to {len(change) - 1}: {', '.join(f'{d:.3f}' for d in change)}"
    return f"{words}."
