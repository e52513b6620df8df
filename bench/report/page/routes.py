"""Where the tokens of each task go, stage by stage and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from moextend.bench.report.collect import Result
from moextend.bench.run.records import RoutingReport, TaskRouting
from moextend.errors import visible


def routes(results: Sequence[Result], shown: Callable[[str], str]) -> list[dict[str, Any]]:
    """One record per run whose routing is known and not damaged; `run` is its number, `shown` makes names of tasks."""
    found = []
    for number, result in enumerate(results):
        try:
            stages = result.run.routing()
        except Exception:  # `moextend bench report routing` names it
            continue
        if stages:
            rows = [_stage(result, stage, report, shown) for stage, report in sorted(stages.items())]
            found.append({"run": number, "stages": rows})
    return found


def _stage(result: Result, stage: int, report: RoutingReport, shown: Callable[[str], str]) -> dict[str, Any]:
    oracle = [
        [visible(shown(task)), forced, cell.value if (cell := result.cells.get((stage, task))) else None]
        for task, forced in (report.oracle or {}).items()
    ]
    inferred = report.inferred.tasks if report.inferred else {}
    return {
        "stage": stage,
        "layers": report.layers,
        "tasks": [{"task": visible(shown(task)), **_task(kept)} for task, kept in report.tasks.items()],
        "oracle": oracle,
        "inferred": [
            [visible(shown(task)), [[visible(name), share] for name, share in one.reached.items()]]
            for task, one in inferred.items()
        ],
    }


def _task(kept: TaskRouting) -> dict[str, Any]:
    """Shares that reach each extension and drift, layer by layer; null where a layer has no such experts."""
    names = dict.fromkeys(name for block in kept.reached for name in block)
    reached = [[visible(name), [block.get(name) for block in kept.reached]] for name in names]
    return {"reached": reached, "drift": kept.drift}
