"""Compares what runs have kept of their data with the data: references, questions and choices of the items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moextend.bench.data import open_items
from moextend.bench.data.source import find_source, is_generated
from moextend.bench.run.context import RunContext
from moextend.bench.run.inputs import refuse_other_inputs
from moextend.bench.run.revisions import recorded
from moextend.bench.run.rundir import Cell, RunDir
from moextend.bench.score.kept import read_predictions
from moextend.bench.score.predictions import PredictionLine
from moextend.data.hub import is_prepared
from moextend.errors import InputError, MoextendError
from moextend.util.foreign import explained

if TYPE_CHECKING:
    from moextend.bench.task import TaskSpec


@dataclass(frozen=True)
class References:
    """What the comparison found."""

    tasks: int = 0
    """Tasks whose data were read."""
    problems: tuple[str, ...] = ()
    unread: str = ""
    """Why the data of a task were not read; "" if all were."""


def compare_references(run: RunDir) -> References:
    """Compares the kept predictions of a run with the data of its tasks, as far as these are on this machine."""
    context, cells = RunContext(run), run.cells().values()
    problems, unread, tasks = list[str](), "", 0
    for name in context.scored:
        own = [cell for cell in cells if cell.task == name and cell.predictions is not None]
        try:
            if not own or not _is_here(context, name):
                continue
            if not own[0].by_lm_eval:  # data of text tasks are compared as a whole below
                problems += _of_items(context, name, own)
            tasks += 1
        except (MoextendError, OSError) as error:
            unread = str(explained(error))
    try:
        refuse_other_inputs(run, {})
    except MoextendError as error:
        problems.append(error.what)
    return References(tasks, tuple(problems), unread)


def _is_here(context: RunContext, name: str) -> bool:
    """Whether the data of a task are on this machine."""
    task = context.tasks[name]
    if task.lm_eval is not None:
        return task.lm_eval.path is not None and name not in recorded(context.run).text_data
    if task.data is None:
        return False
    if is_generated(task):
        return True
    source = find_source(task.data, task.folder(), context.workspace, where=name)
    return source.hub is None or is_prepared(source.hub)


def _of_items(context: RunContext, name: str, cells: Sequence[Cell]) -> list[str]:
    known = _asked(context.tasks[name], context)
    found = []
    for cell in cells:
        lines = read_predictions(context.run.folder / str(cell.predictions), cell.sha256)
        other = [line.id for line in lines if known.get(line.id) != _of_line(line)]
        if other:
            shown = ", ".join(other[:3]) + (", ..." if len(other) > 3 else "")
            found.append(
                f"{name} after stage {cell.stage}: question, references or choices of {len(other)} of {len(lines)} "
                f"items are not those of the data ({shown})"
            )
    return found


def _asked(task: TaskSpec, context: RunContext) -> dict[str, object]:
    """Id of an item -> what its line must have."""
    items = open_items(
        task, "test", context.workspace, context.sequence.scoring.limit, media=False, strict=False
    )
    if not items:
        raise InputError("no items.", where=task.task)
    return {item.id: (item.question, item.answers, item.choices, item.kind, item.position) for item in items}


def _of_line(line: PredictionLine) -> object:
    return line.question, line.answers, line.choices, line.kind, line.position
