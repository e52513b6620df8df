"""Experiments -> what the page shows, as parts that it loads one by one. page/src/data.ts has the same records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moextend.bench import methods, metrics
from moextend.bench.report import How, view
from moextend.bench.report.collect import BOUND_WORDS, TITLES, Experiment, Result, before_method, grouped
from moextend.bench.report.fate import FATES
from moextend.bench.report.items import ItemReader
from moextend.bench.report.looks import looks
from moextend.bench.report.notes import with_sources
from moextend.bench.report.page.items import MOST_MEDIA, Budget, Lifelines, Thumbnails, lifelines, thumbnails
from moextend.bench.report.page.provenance import provenance
from moextend.bench.report.style import Styling
from moextend.bench.report.table import Table, Value
from moextend.bench.report.views import Asked
from moextend.bench.report.views.comparison import comparison_table, has_baseline
from moextend.bench.report.views.published import published_tables
from moextend.bench.run.inputs import pinned_task
from moextend.bench.run.records import RoutingReport, TaskRouting
from moextend.errors import InputError, visible

REPORT = "report"
"""The part that is loaded first."""
NO_ANSWERS = "Packed without questions and answers: bench pack --predictions keeps them."
KNOWN = {
    "given": "Given the task id",
    "inferred": "Inferring the task",
    "none": "Given no task id",
    "?": "With a task identity that is not recorded",
}
"""What methods know of the task at inference -> the start of a sentence."""


@dataclass
class Parts:
    """What the page loads: JSON values by name, and files of media by path."""

    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def parts(
    experiments: Sequence[Experiment], how: How | None = None, workspace: Path | None = None, *, inline: bool = True
) -> Parts:  # fmt: skip
    """All parts of the page.

    Args:
        how: what it compares, and how it looks; without a baseline, methods are compared with the highest ACC.
        workspace: where the data of tasks are looked for if a run's own workspace is not there.
        inline: whether images are in the parts, as many as fit into equal shares of MOST_MEDIA; else they are files.
    """
    how = how or How()
    style = how.style.with_all_columns()
    experiments = style.arranged(experiments)
    found, room = Parts({REPORT: {}}), MOST_MEDIA if inline else float("inf")
    shown = []
    for number, experiment in enumerate(experiments):
        budget = Budget(share := room / (len(experiments) - number))
        tasks = _tasks(experiment, f"e{number}")
        runs = [result for mode in ("sequence", "joint", "independent") for result in experiment.of(mode)]
        flips = [
            [place, *row]
            for place, task in enumerate(tasks)
            for row in _items(found, task, runs, workspace, budget, inline=inline)
        ]
        room -= share - max(budget.left, 0.0) if inline else 0.0
        shown.append(_experiment(experiment, tasks, runs, style, how))
        found.values[f"e{number}.flips"] = {"fates": list(FATES), "rows": flips}
        found.values[f"e{number}.routing"] = list(_routes(runs, style))
        found.values[f"e{number}.runs"] = provenance(runs)
    for task in (task for experiment in shown for task in experiment["tasks"]):
        task |= {"key": visible(task["key"]), "name": visible(style.shown(task["key"]))}
    published = published_tables(experiments, how.references) if how.references else []
    tables = [table_view(with_sources(experiments, table), style) for table in published]
    found.values[REPORT] = {"experiments": shown, "published": tables}
    return found


def table_view(table: Table, style: Styling) -> dict[str, Any]:
    """A table with its numbers as they are written and unrounded."""
    (table,) = style.styled([table])
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
    asked: Asked,
) -> dict[str, Any]:  # fmt: skip
    sentences, comparisons = verdict(experiment, asked)
    best = [next(iter(own)) for own in standings(experiment).values()]
    places = {task["key"]: place for place, task in enumerate(tasks)}

    def views(name: str) -> list[dict[str, Any]]:
        try:
            return [table_view(table, style) for table in view(experiment, name)]
        except InputError:  # bench report rewind names what is damaged
            return []

    summary, *orders = views("forgetting")
    return {
        "name": visible(experiment.label),
        "title": summary["title"],
        "verdict": [visible(style.shown(text)) for text in sentences],
        "tasks": tasks,
        "methods": _methods(experiment, runs, style, places, best),
        "runs": [_run(result, places) for result in runs],
        "cells": _cells(runs, places),
        "summary": summary,
        "comparisons": [
            {"baseline": visible(style.shown(method)), **table_view(with_sources([experiment], table), style)}
            for method, table in comparisons.items()
        ],
        "further": [*orders, *views("rewind"), *views("subsets")],
        "costs": views("costs")[0],
        "readings": views("readings"),
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
                    "lacks": "", "kinds": [],
                    "prompt": "" if role == "text" else visible(spec.get("prompt") or ""),
                }
            )  # fmt: skip
    return found


def _items(
    found: Parts,
    task: dict[str, Any],
    runs: Sequence[Result],
    workspace: Path | None,
    budget: Budget,
    *,
    inline: bool,
) -> list[list[Any]]:
    """Adds the parts of a task's items, and notes in `task` which exist; the flips of the items."""
    own = {number: result for number, result in enumerate(runs) if result.config.mode == "sequence"}
    made = lifelines(task["key"], list(own.values())) if own else None
    if made is None:
        return []
    found.values[task["part"]] = made.view(list(own))
    task["items"] = len(made.ids)
    task["kinds"] = sorted({visible(kind) for kind in made.kind if kind})
    shown = _media(next(iter(own.values())), task["key"], made, workspace, budget)
    task["media"], task["lacks"] = sum(map(bool, shown.at)), shown.lacks
    if all(result.bare for result in own.values()):
        task["lacks"] = " ".join(filter(None, (shown.lacks, NO_ANSWERS)))
    if shown.media:
        files = {f"media/{task['part']}-{place}.{one.form}": one for place, one in enumerate(shown.media)}
        media = [{"kind": one.kind, "src": one.url if inline else path} for path, one in files.items()]
        found.values[f"{task['part']}.media"] = {"at": shown.at, "media": media}
        if not inline:
            found.files |= {path: one.data for path, one in files.items()}
    return made.flips(list(own), [result.last for result in own.values()])


def _media(result: Result, task: str, made: Lifelines, workspace: Path | None, budget: Budget) -> Thumbnails:
    config = result.config
    spec = pinned_task(config.task_spec(task), result.facts)
    own = config.workspace if config.workspace.is_dir() or workspace is None else workspace
    return thumbnails(spec, own, made.ids, made.asked, budget)


def _methods(
    experiment: Experiment, runs: Sequence[Result], style: Styling, places: Mapping[str, int], best: Collection[str]
) -> list[dict[str, Any]]:  # fmt: skip
    """One record per method, order and mode, with its mean matrix."""
    numbers = {result.run.folder: number for number, result in enumerate(runs)}
    known = looks((result.config.method, result.config.order) for result in runs)
    found = []
    for mode in ("sequence", *BOUND_WORDS):
        for (method, order), group in grouped(experiment.of(mode)).items():
            look = known[method, order]
            named = style.shown(method) + (f" ({order})" if order != "given" else "")
            found.append(
                {
                    "label": visible(before_method(mode) + named), "method": visible(method),
                    "order": order, "mode": mode,
                    "role": methods.role_of(method), "identity": group[0].facts.task_identity or "?",
                    "best": method in best and mode == "sequence" and order == "given",
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


def _routes(results: Sequence[Result], style: Styling) -> Iterator[dict[str, Any]]:
    """One record per run whose routing is known and not damaged; `run` is its number."""
    for number, result in enumerate(results):
        try:
            stages = result.run.routing()
        except Exception:  # `moextend bench report routing` names it
            continue
        if stages:
            rows = [_stage(result, stage, report, style) for stage, report in sorted(stages.items())]
            yield {"run": number, "stages": rows}


def _stage(result: Result, stage: int, report: RoutingReport, style: Styling) -> dict[str, Any]:
    def shown(task: str) -> str:
        return visible(style.shown(task))

    cells = {task: result.cells.get((stage, task)) for task in report.oracle or {}}
    inferred = report.inferred.tasks if report.inferred else {}
    return {
        "stage": stage,
        "layers": report.layers,
        "tasks": [{"task": shown(task), **_task(kept)} for task, kept in report.tasks.items()],
        "oracle": [
            [shown(task), forced, cell.value if (cell := cells[task]) else None]
            for task, forced in (report.oracle or {}).items()
        ],
        "inferred": [
            [shown(task), [[visible(name), share] for name, share in one.reached.items()]]
            for task, one in inferred.items()
        ],
    }


def _task(kept: TaskRouting) -> dict[str, Any]:
    """Shares that reach each extension and drift, layer by layer; null where a layer has no such experts."""
    names = dict.fromkeys(name for block in kept.reached for name in block)
    reached = [[visible(name), [block.get(name) for block in kept.reached]] for name in names]
    return {"reached": reached, "drift": kept.drift}


Standings = dict[str, dict[str, tuple[float, list[Result]]]]
"""What methods know of the task -> method -> its mean ACC and its runs, the highest ACC first."""


def standings(experiment: Experiment) -> Standings:
    """The methods in the given order of tasks, without the base, grouped by what they know of the task."""
    found: Standings = {}
    for (method, order), group in grouped(experiment.of("sequence")).items():
        mean = metrics.average(run.summary["acc"] for run in group)
        if order == "given" and methods.role_of(method) != "base" and mean is not None:
            found.setdefault(group[0].facts.task_identity or "?", {})[method] = mean, group
    return {
        identity: dict(sorted(own.items(), key=lambda each: each[1][0], reverse=True))
        for identity, own in sorted(
            found.items(), key=lambda each: max(best for best, _ in each[1].values()), reverse=True
        )
    }


def verdict(experiment: Experiment, asked: Asked) -> tuple[list[str], dict[str, Table]]:
    """What a reader takes away: the best of the methods that know as much of the task, and the tests of the others.

    With it the comparisons with each of these, the highest ACC first; before them that with the baseline if it has run.
    """
    reader, known = ItemReader(), standings(experiment)
    tables: dict[str, Table] = {}
    if asked.baseline and known and has_baseline(experiment, asked.baseline):
        tables[asked.baseline] = comparison_table(experiment, asked.baseline, asked.margin, reader)
    found = []
    for identity, own in known.items():
        best, (acc, group) = next(iter(own.items()))
        if best not in tables:
            tables[best] = comparison_table(experiment, best, asked.margin, reader)
        words = (
            f"{KNOWN.get(identity, KNOWN['?'])}, {best} reaches ACC {acc:.1f}% after stage {group[0].last}"
        )
        found.append(words + _others(list(own), best, tables[best]))
    return found, tables


def _others(own: Sequence[str], best: str, comparison: Table) -> str:
    """What the paired tests say of the methods besides the best one."""
    if len(own) == 1:
        return "; no other method ran that way."
    rows = {
        row["method"].of: row
        for row in comparison.records
        if row["metric"].text == TITLES["acc"]
        and row["method"].words == row["method"].of  # not those of other orders
    }
    verdicts: dict[str, list[str]] = {}
    for method in own:
        if method != best and method in rows:
            verdicts.setdefault(rows[method]["verdict"].text, []).append(method)
    said = "; ".join(
        f"{'no verdict from one seed' if verdict == 'items only' else verdict}: {', '.join(names)}"
        for verdict, names in verdicts.items()
    )
    return f", the highest of {len(own)} methods. Paired with it, {said}."
