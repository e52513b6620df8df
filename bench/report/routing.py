"""Routing after every stage: which new experts each learnt task reaches, and how far it drifted since it was learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moextend.bench import metrics
from moextend.bench.report.collect import Experiment, Result
from moextend.bench.report.table import WIDTH, Column, Table, Value, number, text

NOTE = (
    "Rows: the stage, and a task learnt by then ((text): the sequence's generic text). Columns: per cent of the task's "
    "tokens that reach the new experts of each extension, mean over the layers that have some. KL: of the task's "
    "choices of experts from those at the stage where it was learnt, in thousandths of a nat, mean over layers and "
    "the most of any. On held-out training items."
)
ORACLE = "oracle: score with the task's own extension forced on; final: as it is."

Stages = Mapping[int, Mapping[str, Any]]


def routing_tables(experiment: Experiment) -> list[Table]:
    """One table a run whose routing was looked at."""
    known = [(result, result.run.routing()) for result in experiment.results]
    shown = [_table(experiment, result, stages) for result, stages in known if stages]
    return [replace(table, notes=[NOTE, *table.notes]) for table in shown[:1]] + shown[1:]


def _table(experiment: Experiment, result: Result, stages: Stages) -> Table:
    reached = [_reached(row) for stage in stages.values() for row in stage["tasks"].values()]
    extensions = [name for name in result.tasks if any(name in row for row in reached)]
    named = len("stage task") + sum(map(len, [*result.tasks, *extensions])) + 30 <= WIDTH
    oracle = any(stage.get("oracle") for stage in stages.values())
    columns = [Column("stage", "stage", numeric=False), Column("task", "task", numeric=False)]
    columns += [
        Column(f"reaches_{name}", name if named else str(result.tasks.index(name) + 1)) for name in extensions
    ]
    columns += [Column("kl", "KL"), Column("kl_most", "most")]
    columns += [Column("final", "final"), Column("oracle", "oracle")] if oracle else []
    sections = [
        [_row(result, stage, name, kept, extensions, oracle) for name, kept in stages[stage]["tasks"].items()]
        for stage in sorted(stages)
    ]
    notes = [] if named else ["Columns: the tasks by the number of their stage."]
    notes += [ORACLE] if oracle else []
    notes += [_layers(stage, stages[stage]) for stage in sorted(stages) if "layers" in stages[stage]]
    name = f"{experiment.name}/{result.name}"
    return Table(f"{name}-routing", f"{name}: routing", columns, sections, notes)


def _row(
    result: Result, stage: int, name: str, kept: Mapping[str, Any], extensions: Sequence[str], oracle: bool
) -> list[Value]:
    reached, drift = _reached(kept), kept.get("drift", [])
    values = [number(100 * reached[other] if other in reached else 0.0) for other in extensions]
    values += [number(metrics.average(1000 * kl for kl in drift)), number(_most(drift))]
    if oracle:
        cell = result.cells.get((stage, name))
        told = result.run.routing()[stage].get("oracle", {}).get(name)
        values += [number(cell.value if cell else None), number(told)]
    return [text(str(stage)), text(name), *values]


def _most(drift: Sequence[float]) -> float | None:
    return max((1000 * kl for kl in drift), default=None)


def _reached(kept: Mapping[str, Any]) -> dict[str, float]:
    """Extension -> share of tokens that reach it, mean over the blocks that have it."""
    found: dict[str, list[float]] = {}
    for block in kept["reached"]:
        for name, share in block.items():
            found.setdefault(name, []).append(share)
    return {name: sum(shares) / len(shares) for name, shares in found.items()}


def _layers(stage: int, kept: Mapping[str, Any]) -> str:
    """Which layers got new experts, and why."""
    layers, change = kept["layers"], kept.get("change", [])
    words = f"Stage {stage}: new experts in layers {', '.join(map(str, layers))}"
    if change:
        words += f"; d_j of layers 0 to {len(change) - 1}: {', '.join(f'{d:.3f}' for d in change)}"
    return f"{words}."
