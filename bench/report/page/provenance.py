"""What every cell rests on: the command of its run, versions, weights, files and digests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from moextend.bench.report.collect import Result
from moextend.bench.report.explain import command, data_sources, method_sources, stage_sources, versions
from moextend.bench.run.records import RoutingReport, TaskRouting
from moextend.bench.score.records import Cell
from moextend.errors import visible


class _Strings:
    """Words and their places; what many runs share is kept once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self._known.setdefault(visible(text), len(self._known))

    def pairs(self, sources: dict[str, str]) -> list[list[int]]:
        return [[self(name), self(value)] for name, value in sources.items() if value]

    @property
    def words(self) -> list[str]:
        return list(self._known)


def provenance(results: Sequence[Result], tasks: Sequence[str]) -> dict[str, Any]:
    """For the page: texts as places in `words`, runs and tasks in their order there."""
    strings = _Strings()
    runs = []
    for result in results:
        stages = stage_sources(result.run, ["base", *result.stage_names])
        cells = [
            [
                stage,
                tasks.index(task),
                *map(strings, (str(cell.predictions or ""), cell.sha256, cell.scorer, cell.weights)),
            ]
            for (stage, task), cell in sorted(result.cells.items())
            if task in tasks
        ]
        runs.append(
            {
                "folder": strings(str(result.run.folder)),
                "id": strings(result.run.id),
                "command": strings(command(result.config)),
                "sources": strings.pairs(method_sources(result.run)),
                "versions": strings.pairs(versions(result.run)),
                "stages": strings.pairs(stages),
                "data": [strings.pairs(_data(result, task)) for task in tasks],
                "cells": cells,
            }
        )
    return {"words": strings.words, "runs": runs}


def _files(cell: Cell) -> tuple[str, ...]:
    return str(cell.predictions or ""), cell.sha256, cell.scorer, cell.weights


def _data(result: Result, task: str) -> dict[str, str]:
    return data_sources(result.run, task) if task in result.config.tasks else {}


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
