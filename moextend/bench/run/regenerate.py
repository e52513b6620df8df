"""Answers a sample of the items of a run again, and compares the answers with the kept ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from moextend.bench.data import open_items
from moextend.bench.run.context import RunContext
from moextend.bench.run.models import restored_stages
from moextend.bench.run.rundir import Cell, RunDir
from moextend.bench.run.runner import selected
from moextend.bench.score import text, vqa
from moextend.bench.score.backend import in_process
from moextend.bench.score.lines import PredictionLine, text_item
from moextend.bench.task import TaskSpec
from moextend.errors import InputError
from moextend.util.files import read_lines
from moextend.util.foreign import explained

if TYPE_CHECKING:
    from moextend.model.multimodal import MultimodalLM

CLOSE = 1e-3
"""Relative and absolute difference (nats) up to which log-likelihoods are equal: batches may differ in size."""


@dataclass(frozen=True)
class Again:
    """A cell whose answers were made again."""

    stage: int
    task: str
    items: int = 0
    """Answers that were compared."""
    other: tuple[str, ...] = ()
    """Ids of the items whose answer is another one now."""
    problem: str = ""
    """Why nothing was compared, or why the model is another one; "" if there is no such reason."""


def answer_again(run: RunDir, batches: int) -> Iterator[Again]:
    """Yields every kept cell of a run with `batches` of its batches answered again by the restored model.

    The batches are complete ones of the run, so that the same machine and versions give the same answers to the bit.
    They are drawn by the name of the cell: the same call answers the same items. Text tasks answer their first items.

    Raises:
        InputError: the weights of a stage are missing; the cells before it were yielded.
    """
    context = RunContext(run)
    cells = run.cells()
    last = max((stage for stage, _ in cells), default=0)
    for index, model, learned in restored_stages(context, last):
        for name in context.scored:
            cell = cells.get((index, name))
            if cell is not None and cell.predictions is not None:
                yield _again(context, model, cell, learned, batches)


def _again(
    context: RunContext, model: MultimodalLM, cell: Cell, learned: Sequence[str], batches: int
) -> Again:
    weights = selected(context, model, cell.task, learned)
    if weights != cell.weights:
        problem = (
            f"the restored model has the fingerprint {weights}, and the cell was scored by {cell.weights}"
        )
        return Again(cell.stage, cell.task, problem=problem)
    compare = _text_again if cell.by_lm_eval else _vqa_again
    path = context.run.folder / str(cell.predictions)
    try:
        items, other = compare(context, model, context.tasks[cell.task], path, batches)
    except Exception as error:  # of one cell: its data or its predictions
        return Again(cell.stage, cell.task, problem=str(explained(error)))
    return Again(cell.stage, cell.task, items, tuple(other))


def _vqa_again(
    context: RunContext, model: MultimodalLM, task: TaskSpec, path: Path, batches: int
) -> tuple[int, list[str]]:
    """Number of answers made again, and the ids of those that differ."""
    size = context.sequence.scoring.batch_size
    items = open_items(task, "test", context.workspace, context.sequence.scoring.limit)
    order = vqa.answer_order(items)
    kept = [PredictionLine.read(line) for line in read_lines(path)]
    if len(kept) != len(items):
        raise InputError(
            f"has {len(kept)} answers, and the task {len(items)} items.",
            where=str(path),
            hint="Restore the original file, or run again.",
        )
    starts = list(range(0, len(items), size))
    drawn = Random(f"{path.parent.name} {task.task}").sample(starts, min(batches, len(starts)))
    backend = in_process(model, size)
    compared, other = 0, []
    for start in drawn:
        made = vqa.predict_batch(task, [items[place] for place in order[start : start + size]], backend)
        compared += len(made)
        before = kept[start : start + size]
        other += [new.id for old, new in zip(before, made, strict=True) if not _same(old, new)]
    return compared, other


def _same(old: PredictionLine, new: PredictionLine) -> bool:
    return (old.id, old.prediction) == (new.id, new.prediction) and _close(old.likelihoods, new.likelihoods)


def _close(old: Sequence[float] | None, new: Sequence[float] | None) -> bool:
    if old is None or new is None or len(old) != len(new):
        return old == new
    return all(isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE) for a, b in zip(old, new, strict=True))


def _text_again(
    context: RunContext, model: MultimodalLM, task: TaskSpec, path: Path, batches: int
) -> tuple[int, list[str]]:
    """Number of answers made again, and the names of those that differ."""
    size = context.sequence.scoring.batch_size
    kept = {text_item(line): line for line in read_lines(path) if "summary" not in line}
    made = text.first_answers(model, task, batch_size=size, limit=size * batches, workspace=context.workspace)
    found = {text_item(line): line for line in made if text_item(line) in kept}
    other = [name for name, line in found.items() if not _same_text(kept[name], line)]
    return len(found), other


def _same_text(old: dict[str, Any], new: dict[str, Any]) -> bool:
    same = (old.get("prediction"), old.get("right")) == (new.get("prediction"), new.get("right"))
    return same and _close(old.get("loglikelihoods"), new.get("loglikelihoods"))
