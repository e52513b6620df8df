"""Experiments -> what the page shows, as parts that it loads one by one. page/src/data.ts has the same records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moextend.bench import methods, metrics
from moextend.bench.references import Reference
from moextend.bench.report.collect import Experiment, Result, grouped
from moextend.bench.report.comparison import MARGIN
from moextend.bench.report.costs import costs_table
from moextend.bench.report.fate import FATES
from moextend.bench.report.forgetting import forgetting_table
from moextend.bench.report.looks import looks
from moextend.bench.report.orders import orders_tables
from moextend.bench.report.page.lifelines import Flip, Lifelines, lifelines
from moextend.bench.report.page.limits import limits
from moextend.bench.report.page.provenance import provenance, routes
from moextend.bench.report.page.thumbnails import Budget, Thumbnails, thumbnails
from moextend.bench.report.page.verdict import verdict
from moextend.bench.report.published import published_tables
from moextend.bench.report.ranks import ranked
from moextend.bench.report.readings import kinds_table, readings_table
from moextend.bench.report.sources import noted
from moextend.bench.report.style import Styling
from moextend.bench.report.table import Table, Value
from moextend.bench.report.variants import variant_tables
from moextend.bench.run.inputs import pinned_task
from moextend.errors import visible

REPORT = "report"
"""The part that is loaded first."""
NO_ANSWERS = "Packed without questions and answers: bench pack --predictions keeps them."


@dataclass
class Parts:
    """What the page loads: JSON values by name, and files of media by path."""

    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def parts(
    experiments: Sequence[Experiment], *, baseline: str | None = None, margin: float = MARGIN,
    references: Sequence[Reference] = (), style: Styling | None = None, workspace: Path | None = None,
    inline: bool = True,
) -> Parts:  # fmt: skip
    """All parts of the page.

    Args:
        baseline: the method of the comparison; None: the one with the highest ACC.
        style: how the tables look, and the names and order of methods.
        workspace: where the data of tasks are looked for if a run's own workspace is not there.
        inline: whether images are in the parts, as many as fit; else they are files.
    """
    style = style or Styling()
    experiments = style.arranged(experiments)
    found, budget = Parts({REPORT: {}}), Budget() if inline else Budget(float("inf"))
    shown = []
    for number, experiment in enumerate(experiments):
        tasks = _tasks(experiment, f"e{number}")
        runs = [result for mode in ("sequence", "joint", "independent") for result in experiment.of(mode)]
        flips = [
            [place, *_flat(flip)]
            for place, task in enumerate(tasks)
            for flip in _items(found, experiment, task, runs, workspace, budget, inline=inline)
        ]
        shown.append(_experiment(experiment, tasks, runs, style, baseline, margin))
        found.values[f"e{number}.flips"] = {"fates": list(FATES), "rows": flips}
        found.values[f"e{number}.routing"] = routes(runs, style.shown)
        found.values[f"e{number}.provenance"] = provenance(runs, [task["key"] for task in tasks])
    for task in (task for experiment in shown for task in experiment["tasks"]):
        task |= {"key": visible(task["key"]), "name": visible(style.shown(task["key"]))}
    published = published_tables(experiments, references) if references else []
    tables = [table_view(table, style) for table in published]
    found.values[REPORT] = {"experiments": shown, "published": tables}
    return found


def table_view(table: Table, style: Styling) -> dict[str, Any]:
    """A table with its numbers as they are written and unrounded."""
    (table,) = style.styled([table], whole=True)
    columns = [
        {"key": visible(one.key), "title": visible(one.title), "numeric": one.numeric, "wide": one.wide}
        for one in table.columns
    ]
    sections = [[[_value(value) for value in row] for row in section] for section in table.sections]
    return {
        "key": visible(table.key), "title": visible(table.title), "columns": columns, "sections": sections,
        "notes": [visible(note) for note in table.notes],
    }  # fmt: skip


def _value(value: Value) -> list[Any]:
    """[text, number, spread, style], cut where the rest is empty."""
    whole = [visible(value.text), value.number, value.spread, value.style or None]
    while len(whole) > 1 and whole[-1] is None:
        whole.pop()
    return whole


def _experiment(
    experiment: Experiment, tasks: Sequence[dict[str, Any]], runs: Sequence[Result], style: Styling,
    baseline: str | None, margin: float,
) -> dict[str, Any]:  # fmt: skip
    found, costs = verdict(experiment, baseline, margin), costs_table(experiment)
    summary = forgetting_table(experiment)
    variants = variant_tables(experiment)
    further = [*orders_tables(experiment), *variants["rewind"], *variants["subsets"]]
    readings = [table for table in (readings_table(experiment), kinds_table(experiment)) if table]
    places = {task["key"]: place for place, task in enumerate(tasks)}

    def view(table: Table) -> dict[str, Any]:
        return table_view(noted([experiment], table), style)

    return {
        "name": visible(experiment.name),
        "title": visible(summary.title),
        "verdict": [visible(style.shown(text)) for text in found.sentences],
        "tasks": tasks,
        "methods": _methods(experiment, runs, style, places),
        "runs": [_run(result, places) for result in runs],
        "cells": _cells(runs, places),
        "summary": view(ranked(experiment, summary)),
        "comparison": view(found.comparison) if found.comparison else None,
        "further": [view(table) for table in further],
        "costs": view(costs),
        "readings": [view(table) for table in readings],
        "limits": [
            {
                "title": limit.title,
                "text": visible(style.shown(limit.text)),
                "rows": [[visible(style.shown(text)) for text in row] for row in limit.rows],
            }
            for limit in limits(experiment, found, costs)
        ],
    }


def _tasks(experiment: Experiment, prefix: str) -> list[dict[str, Any]]:
    """The tasks by role, in the order in which the sequence gives them."""
    first = experiment.results[0]
    given = next((one for one in experiment.results if one.config.order == "given"), first)
    roles = {"learned": given.tasks, "text": first.text, "transfer": first.config.transfer}
    found: list[dict[str, Any]] = []
    for role, names in roles.items():
        for name in names:
            spec = first.config.tasks.get(name, {})
            found.append(
                {
                    "key": name, "role": role, "part": f"{prefix}.items{len(found)}", "items": 0, "media": 0,
                    "lacks": "", "kinds": [], "scorer": spec.get("scorer") or "", "licence": spec.get("licence") or "",
                    "description": visible(spec.get("description") or ""),
                    "prompt": "" if role == "text" else visible(spec.get("prompt") or ""),
                }
            )  # fmt: skip
    return found


def _items(
    found: Parts, experiment: Experiment, task: dict[str, Any], runs: Sequence[Result], workspace: Path | None,
    budget: Budget, *, inline: bool,
) -> list[Flip]:  # fmt: skip
    """Adds the parts of a task's items, and notes in `task` which exist."""
    own = [(number, result) for number, result in enumerate(runs) if result.config.mode == "sequence"]
    made = lifelines(task["key"], [result for _, result in own]) if own else None
    if made is None:
        return []
    numbers = [number for number, _ in own]
    found.values[task["part"]] = made.view(numbers)
    task["items"] = len(made.ids)
    task["kinds"] = sorted({visible(kind) for kind in made.kind if kind})
    shown = _media(own[0][1], task["key"], made, workspace, budget)
    task["media"], task["lacks"] = sum(map(bool, shown.at)), shown.lacks
    if all(result.bare for _, result in own):
        task["lacks"] = " ".join(filter(None, (shown.lacks, NO_ANSWERS)))
    if shown.media:
        files = {f"media/{task['part']}-{place}.{one.form}": one for place, one in enumerate(shown.media)}
        media = [{"kind": one.kind, "src": one.url if inline else path} for path, one in files.items()]
        found.values[f"{task['part']}.media"] = {"at": shown.at, "media": media}
        if not inline:
            found.files |= {path: one.data for path, one in files.items()}
    return made.flips(numbers, [result.last for _, result in own])


def _media(result: Result, task: str, made: Lifelines, workspace: Path | None, budget: Budget) -> Thumbnails:
    config = result.config
    spec = pinned_task(config.task_spec(task), result.facts)
    own = config.workspace if config.workspace.is_dir() or workspace is None else workspace
    return thumbnails(spec, own, made.ids, made.asked, budget)


def _methods(
    experiment: Experiment, runs: Sequence[Result], style: Styling, places: Mapping[str, int]
) -> list[dict[str, Any]]:
    """One record per method, order and mode, with its mean matrix."""
    numbers = {result.run.folder: number for number, result in enumerate(runs)}
    known = looks((result.config.method, result.config.order) for result in runs)
    found = []
    for mode, words in (("sequence", "{}"), ("joint", "joint, {}"), ("independent", "each alone, {}")):
        for (method, order), group in grouped(experiment.of(mode)).items():
            look, named = (
                known[method, order],
                style.shown(method) + (f" ({order})" if order != "given" else ""),
            )
            found.append(
                {
                    "label": visible(words.format(named)), "method": visible(method), "order": order, "mode": mode,
                    "role": methods.role_of(method), "identity": group[0].facts.task_identity or "?",
                    "color": look.color, "marker": look.marker, "filled": look.filled,
                    "runs": [numbers[result.run.folder] for result in group], "last": group[0].last,
                    "tasks": [places[task] for task in group[0].tasks], "means": list(_means(group, places)),
                }
            )  # fmt: skip
    return found


def _means(group: Sequence[Result], places: Mapping[str, int]) -> Iterator[list[Any]]:
    """[stage, task, mean, standard deviation over runs] of every cell that some run has."""
    for stage in range(group[0].last + 1):
        for task, place in places.items():
            cells = [result.cells.get((stage, task)) for result in group]
            mean, sd = metrics.mean_and_sd([cell.value if cell else None for cell in cells])
            if mean is not None:
                yield [stage, place, mean, sd]


def _run(result: Result, places: Mapping[str, int]) -> dict[str, Any]:
    config = result.config
    return {
        "name": visible(result.name), "seed": config.seed, "order": config.order, "mode": config.mode,
        "state": result.state, "last": result.last, "tasks": [places[task] for task in result.tasks],
    }  # fmt: skip


def _cells(runs: Sequence[Result], places: Mapping[str, int]) -> dict[str, list[Any]]:
    """The scored cells of all runs, a list a column."""
    rows = [
        [number, stage, places[task], cell.value, cell.stderr, cell.n]
        for number, result in enumerate(runs)
        for (stage, task), cell in sorted(result.cells.items())
        if task in places
    ]
    names = ("run", "stage", "task", "value", "stderr", "n")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _flat(flip: Flip) -> list[Any]:
    whole = asdict(flip)
    return [whole["run"], whole["stage"], *whole["counts"], whole["p"]]
