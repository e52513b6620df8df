"""Answers of a submission: the items that they belong to compared with the data here, and their scores made again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Any

from moextend.bench.data import open_items
from moextend.bench.data.source import find_source
from moextend.bench.run.rundir import Cell, RunDir
from moextend.bench.score import text
from moextend.bench.score.kept import SAME, read_predictions
from moextend.bench.score.lines import PredictionLine
from moextend.bench.score.records import LM_EVAL
from moextend.bench.score.vqa import score_items
from moextend.bench.scorers import search
from moextend.bench.task import TaskSpec
from moextend.errors import MoextendError, counted, listed
from moextend.util import files
from moextend.util.foreign import explained


@dataclass(frozen=True)
class Rescored:
    """What the answers of a cell give now."""

    items: str = ""
    """In what their items differ from those of the task; "" if in nothing."""
    unknown: str = ""
    """Why the items cannot be compared; "" if they were."""
    values: tuple[float, ...] = ()
    """The score in percent that they give; of a group of text tasks the mean over items and over tasks. Empty: not to
    be made again."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Other parts of the cell that they give: items, kinds, readings."""
    damage: str = ""
    """Why they cannot be read; "" if they were."""

    def problem(self, cell: Cell) -> str:
        """In what the cell differs from what its answers give; "" if in nothing."""
        if self.damage:
            return self.damage
        if self.values and not any(abs(value - cell.value) < SAME for value in self.values):
            return f"{cell.value:.2f}, and its answers give {self.values[0]:.2f}"
        other = [name for name, value in self.more.items() if not _close(value, getattr(cell, name))]
        return f"{listed(other)} differ from what its answers give" if other else ""


class Rescorer:
    """Scores answers again by the tasks of a workspace; what runs have in common is read once."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._known: dict[tuple[str, str, str], Rescored] = {}
        self._items: dict[tuple[str, str], dict[str, PredictionLine] | str] = {}
        self._texts: dict[str, text.Again] = {}

    def __call__(self, run: RunDir, cell: Cell, task: TaskSpec, limit: int | None) -> Rescored:
        """What the answers of a cell, which are here, give; `limit`: of the scored items of a task."""
        path = run.folder / str(cell.predictions)
        key = (files.sha256(path) if path.is_file() else "", *_name(task))
        if key not in self._known:
            try:
                made = (self._text if task.kind == "text" else self._questions)(path, task, limit)
            except Exception as error:  # a damaged file, whatever is wrong with it
                made = Rescored(damage=f"its answers cannot be read: {explained(error)}")
            self._known[key] = made
        scorer = f"{LM_EVAL}{task.lm_eval.metric}" if task.lm_eval else task.scorer
        if cell.scorer != scorer:
            return replace(self._known[key], damage=f"scored by {cell.scorer}, and the task has {scorer}")
        return self._known[key]

    def _questions(self, path: Path, task: TaskSpec, limit: int | None) -> Rescored:
        records = read_predictions(path, "")
        search(self._workspace)
        made, _ = score_items(records, task.scorer)
        more = {each.name: getattr(made, each.name) for each in fields(made) if each.name != "value"}
        asked = self._asked(task, limit)
        if isinstance(asked, str):
            return Rescored(unknown=asked, values=(made.value,), more=more)
        given = [replace(record, prediction="", likelihoods=None) for record in records]
        return Rescored(_differ(given, asked), values=(made.value,), more=more)

    def _asked(self, task: TaskSpec, limit: int | None) -> dict[str, PredictionLine] | str:
        """Id -> item of a task as a line without an answer; or why its data are not here."""
        assert task.data is not None
        key = _name(task)
        if key not in self._items:
            try:
                source = find_source(task.data, task.folder(), self._workspace, where=task.task)
                if source.hub is not None:
                    self._items[key] = "its data are on the hub, and are not opened"
                else:
                    opened = open_items(task, "test", self._workspace, limit)
                    self._items[key] = {item.id: PredictionLine.of(item, "") for item in opened}
            except MoextendError as error:
                self._items[key] = f"its data are not here: {error.what.rstrip('.')}"
        return self._items[key]

    def _text(self, path: Path, task: TaskSpec, limit: int | None) -> Rescored:
        *lines, last = files.raw_lines(path)
        more = {key: value for key, value in json.loads(last)["summary"].items() if key in ("n", "by_kind")}
        records = [json.loads(line) for line in lines]
        try:
            loaded = text.load_task(task, self._workspace)
        except MoextendError as error:
            return Rescored(unknown=f"its data are not here: {error.what.rstrip('.')}", more=more)
        assert task.lm_eval is not None
        again = self._texts.setdefault(task.task, text.Again(loaded, task.lm_eval.metric))
        found = [_checked(record, *again(record)) for record in records]
        wrong = Counter(problem for _, problem in found if problem)
        twice = len(records) - len({(record["task"], record["id"]) for record in records})
        count = text.items_here(loaded, task, limit)
        problems = [f"{counted(number, 'item')} with {what}" for what, number in wrong.items()]
        problems += [f"{len(records)} of {count} items"] * (len(records) != count)
        problems += [f"{counted(twice, 'item')} twice"] * bool(twice)
        values = {name: [value for record, (value, _) in zip(records, found, strict=True) if record["task"] == name]
                  for name in loaded.tasks}  # fmt: skip
        return Rescored("; ".join(problems), values=_means(values), more=more | {"n": len(records)})


def _name(task: TaskSpec) -> tuple[str, str]:
    """A task with the data of its seed."""
    return task.task, task.data.path if task.data else ""


def _checked(record: Mapping[str, Any], value: float | None, problem: str) -> tuple[float | None, str]:
    """The same; a problem if the record states another value."""
    if value is not None and record.get("right") != value:
        problem = problem or f"'right' {record.get('right')}, which its answer does not give"
    return value, problem


def _differ(given: Sequence[PredictionLine], asked: Mapping[str, PredictionLine]) -> str:
    """In what the items of answers differ from those of a task."""
    if len(given) != len(asked) or {line.id for line in given} != asked.keys():
        known = len({line.id for line in given} & asked.keys())
        return f"{counted(len(given), 'answer')} to {known} of its {counted(len(asked), 'item')}"
    other = [line for line in given if line != asked[line.id]]
    parts = [
        each.name
        for each in fields(PredictionLine)
        if any(getattr(line, each.name) != getattr(asked[line.id], each.name) for line in other)
    ]
    return f"another {listed(parts)} in {counted(len(other), 'item')}" if other else ""


def _means(values: Mapping[str, Sequence[float | None]]) -> tuple[float, ...]:
    """Mean in percent over items, and over tasks, of a metric that is a mean; empty for others."""
    known = {name: [value for value in own if value is not None] for name, own in values.items()}
    if any(not own or len(own) < len(values[name]) for name, own in known.items()):
        return ()
    every = [value for own in known.values() for value in own]
    return 100 * fmean(every), 100 * fmean(map(fmean, known.values()))


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_close(value, other[key]) for key, value in one.items())
    if isinstance(one, float) and isinstance(other, float | int):
        return isclose(one, other, rel_tol=1e-9, abs_tol=SAME)
    return bool(one == other)
