"""What runs recorded besides scores: other readings of the final answers, and routing after every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from moextend.bench import metrics
from moextend.bench.report.collect import (
    Experiment,
    Result,
    damaged_run,
    grouped,
    row_name,
    scale_notes,
    without_damaged,
)
from moextend.bench.report.table import (
    Column,
    Row,
    Table,
    named,
    number,
    over_runs,
    text,
    words_column,
)
from moextend.bench.report.views import Asked
from moextend.bench.run.records import RoutingReport, TaskRouting
from moextend.bench.score.records import Cell

READINGS = ("strict", "normalised", "likelihood")
READ = (
    "After the last stage. strict: the gold text as it is, or its letter. normalised: full marks, the gold after "
    "the VQA form, or its words in the answer. likelihood: the right choice is the likeliest. more: further metrics of "
    "the scorer, the same answers by its older version, and 'the form is wrong, not the answer' where normalised "
    "exceeds strict by 10 points or more: ask for shorter answers (prompt, max_new_tokens). See docs/scorers.md."
)
KINDS = "After the last stage. A kind is what the task's column of kinds says of a question."
WRONG_FORM = 10.0
"""Points by which the normalised reading exceeds the strict one where the form of the answers is wrong."""
FORM = "the form is wrong, not the answer"
ROUTING = (
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


def readings_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """The readings, a row per method and task, and the scores by kind of question, as far as there are any."""
    groups, name = grouped(experiment.of("sequence")).values(), experiment.label
    columns = [
        *map(words_column, ("method", "task", "scorer")),
        *(Column(key, key) for key in ("score", *READINGS)),
        words_column("more"),
    ]
    sections = [_readings(group) for group in groups]
    notes = [READ, *scale_notes(experiment.of("sequence"))]
    title = f"{name}: readings of the answers"
    read = Table(f"{name}-readings", title, columns, [*filter(None, sections)], notes, kind="readings")
    columns = [*map(words_column, ("method", "task", "kind")), Column("score", "score")]
    sections = [_kinds(group) for group in groups]
    title = f"{name}: scores by kind of question"
    kinds = Table(f"{name}-kinds", title, columns, [*filter(None, sections)], [KINDS], kind="kinds")
    return [table for table in (read, kinds) if table.sections]


def _last(group: Sequence[Result], task: str) -> list[Cell]:
    return [cell for result in group if (cell := result.cells.get((result.last, task)))]


def _kinds(group: Sequence[Result]) -> list[Row]:
    rows = []
    for task in group[0].tasks:
        cells = _last(group, task)
        kinds = sorted({kind for cell in cells for kind in cell.by_kind})
        for kind in kinds if len(kinds) > 1 else ():
            score = over_runs(cell.by_kind.get(kind) for cell in cells)
            rows.append([row_name(group), named(task), text(kind), score])
    return rows


def _readings(group: Sequence[Result]) -> list[Row]:
    rows = []
    for task in (*group[0].tasks, *group[0].config.transfer):
        cells = _last(group, task)
        read = [cell.readings if cell else {} for one in group for cell in [one.cells.get((one.last, task))]]
        if not any(read):
            continue
        apart = [one["normalised"] - one["strict"] for one in read if {"normalised", "strict"} <= one.keys()]
        form = [FORM] if apart and fmean(apart) >= WRONG_FORM else []
        further = dict.fromkeys(name for one in read for name in one if name not in READINGS)
        more = [f"{name} {over_runs(one.get(name) for one in read).text}" for name in further]
        rows.append(
            [
                row_name(group),
                named(task),
                text(", ".join(sorted({cell.scorer for cell in cells}))),
                over_runs(cell.value for cell in cells),
                *(over_runs(one.get(name) for one in read) for name in READINGS),
                text(", ".join([*form, *more])),
            ]
        )
    return rows


def routing_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """One table per run whose routing was looked at; InputError if all that is known is damaged."""
    shown, inferred, damaged = list[Table](), list[Table](), list[str]()
    for result in experiment.results:
        try:
            stages = result.run.routing()
            shown += [_routing(experiment, result, stages)] if stages else []
            infers = any(stage.inferred for stage in stages.values())
            inferred += [_inferred(experiment, result, stages)] if infers else []
        except Exception as error:
            damaged.append(damaged_run(result.run, error))
    found = [replace(table, notes=[ROUTING, *table.notes]) for table in shown[:1]] + shown[1:] + inferred
    return without_damaged(found, damaged, "report routing")


def _inferred(experiment: Experiment, result: Result, stages: Stages) -> Table:
    """Which extension the inputs of every task are taken for, stage by stage."""
    kept = {stage: found.inferred for stage, found in sorted(stages.items()) if found.inferred}
    extensions = [name for name in result.tasks if any(name in known.rejected for known in kept.values())]
    columns = [words_column("stage"), words_column("task"), Column("none", "none")]
    columns += [Column(f"reaches_{name}", name) for name in extensions]
    sections = [
        [
            [
                text(str(stage)),
                named(task),
                *(number(100 * row.reached.get(name, 0.0)) for name in ("", *extensions)),
            ]
            for task, row in known.tasks.items()
        ]
        for stage, known in kept.items()
    ]
    promised = max(share for known in kept.values() for share in known.rejected.values())
    notes = [
        INFERRED,
        f"A threshold rejects at most {100 * promised:.1f}% of an extension's own inputs in expectation.",
    ]
    name = f"{experiment.label}/{result.name}"
    return Table(f"{name}-inferred", f"{name}: task inference", columns, sections, notes, kind="routing")


def _routing(experiment: Experiment, result: Result, stages: Stages) -> Table:
    reached = [_reached(row) for stage in stages.values() for row in stage.tasks.values()]
    extensions = [name for name in result.tasks if any(name in row for row in reached)]
    oracle = any(stage.oracle for stage in stages.values())
    columns = [words_column("stage"), words_column("task")]
    columns += [Column(f"reaches_{name}", name) for name in extensions]
    columns += [Column("kl", "KL"), Column("kl_most", "most")]
    columns += [Column("final", "final"), Column("oracle", "oracle")] if oracle else []
    sections, notes = [], [ORACLE] if oracle else []
    for stage, report in sorted(stages.items()):
        rows = []
        for name, kept in report.tasks.items():
            cell, forced = result.cells.get((stage, name)), (report.oracle or {}).get(name)
            ends = [number(cell.value if cell else None), number(forced)] if oracle else []
            rows.append([text(str(stage)), named(name), *_reaching(kept, extensions), *ends])
        sections.append(rows)
        notes += [_layers(stage, report)] if report.layers is not None else []
    name = f"{experiment.label}/{result.name}"
    return Table(f"{name}-routing", f"{name}: routing", columns, sections, notes, kind="routing")


def _reaching(kept: TaskRouting, extensions: Sequence[str]) -> Row:
    """Share of tokens that reach each extension, and the drift of routing."""
    reached, drift = _reached(kept), [1000 * kl for kl in kept.drift or []]
    shares = [number(100 * reached.get(name, 0.0)) for name in extensions]
    return [*shares, number(metrics.average(drift)), number(max(drift, default=None))]


def _reached(kept: TaskRouting) -> dict[str, float]:
    """Extension -> share of tokens that reach it, mean over the blocks that have it."""
    found: dict[str, list[float]] = {}
    for block in kept.reached:
        for name, share in block.items():
            found.setdefault(name, []).append(share)
    return {name: sum(shares) / len(shares) for name, shares in found.items()}


def _layers(stage: int, kept: RoutingReport) -> str:
    """Which layers got new experts, and why."""
    words = f"Stage {stage}: new experts in layers {', '.join(map(str, kept.layers or []))}"
    if change := kept.change or []:
        words += f"; d_j of layers 0 to {len(change) - 1}: {', '.join(f'{d:.3f}' for d in change)}"
    return f"{words}."
