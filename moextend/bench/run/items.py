"""The scores of single items, kept in a pack instead of the answers: what tests between runs need."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from moextend.bench.run.rundir import RunDir
from moextend.bench.score.kept import ScoreReader, read_predictions, text_scores
from moextend.bench.score.lines import DistinctLines, Words
from moextend.bench.score.records import Cell
from moextend.errors import InputError, SpecError
from moextend.util import files
from moextend.util.spec import Record

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

log = logging.getLogger(__name__)

NAME = "items.json"
AGAIN = "Unpack the run again."


class CellItems(BaseModel):
    """Scores of the items of one cell, in the order of `TaskItems.items`."""

    model_config = Record.model_config

    stage: int
    """Stage after which they were scored; 0 is the base."""
    scores: list[int | float | None]
    """Score of each item, 0..1 for most. null: it has none of its own, or the cell lacks it."""
    weights: list[float] | None = None
    """Weight of each item in the score of the cell. null: all are equal."""


class TaskItems(BaseModel):
    """The items of one task."""

    model_config = Record.model_config

    items: list[str]
    """Their ids, as in the predictions; of a text task, lm-eval's task and the number there."""
    images: list[str | None] | None = None
    """Id of each item's image, which its items share. null: none has one."""
    cells: list[CellItems]
    """One entry for each stage after which the task was scored."""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        lists = [self.images, *(each for cell in self.cells for each in (cell.scores, cell.weights))]
        if any(each is not None and len(each) != len(self.items) for each in lists):
            raise ValueError("lists of a task differ in length")
        if len(set(self.items)) < len(self.items):
            raise ValueError("an item is listed twice")
        return self


class PackedItems(Record):
    """`items.json`: scores of single items, in runs from a pack without predictions."""

    tasks: dict[str, TaskItems] = Field(default_factory=dict)
    """Task -> its items; tasks whose predictions were missing or damaged are left out."""
    digest: str = ""
    """Digest of `tasks`."""

    def of(self, stage: int, task: str) -> tuple[TaskItems, CellItems] | None:
        """The items of a cell and their scores; None if they are not here."""
        found = self.tasks.get(task)
        cells = [cell for cell in found.cells if cell.stage == stage] if found else []
        return (found, cells[-1]) if found and cells else None


def read_items(run: RunDir) -> PackedItems | None:
    """The item scores of a run from a pack; None if it has none.

    Raises:
        SpecError: the file is damaged or was edited.
    """
    path = run.folder / NAME
    if not path.is_file():
        return None
    found = PackedItems.parse(files.read_json(path), where=str(path), hint=AGAIN)
    if found.digest != _digest(found.tasks):
        raise SpecError("the file is damaged or was edited.", where=str(path), hint=AGAIN)
    return found


def items_of(run: RunDir) -> PackedItems:
    """The item scores of a run that has its predictions. A warning names cells whose predictions are unusable."""
    ids = Words()
    scores = ScoreReader(ids)
    texts = DistinctLines(partial(text_scores, ids))
    found: dict[str, list[tuple[Cell, list[Array]]]] = {}
    for cell in run.cells().values():
        if cell.predictions is None:
            continue
        try:
            if cell.by_lm_eval:
                columns = texts.read(run.folder / cell.predictions, cell.sha256)
            else:
                own = scores(run.folder, cell, run.config.workspace)
                columns = [own.item, own.score, own.weight]
            if not len(columns[0]):
                raise SpecError("no such file, or an empty one.", where=str(run.folder / cell.predictions))
        except (InputError, ValidationError, KeyError, TypeError, ValueError) as error:
            log.warning(
                "%s: %s after stage %d: no scores of items: %s", run.folder, cell.task, cell.stage, error
            )
            continue
        known = [column[columns[0] >= 0] for column in columns]
        found.setdefault(cell.task, []).append((cell, known))
    words = ids.words()
    tasks = {task: _task(run, cells, words) for task, cells in found.items()}
    return PackedItems(tasks=tasks, digest=_digest(tasks))


def _digest(tasks: Mapping[str, TaskItems]) -> str:
    return files.digest({name: task.model_dump() for name, task in tasks.items()})


def _task(run: RunDir, cells: Sequence[tuple[Cell, list[Array]]], words: Sequence[str]) -> TaskItems:
    numbers = list(dict.fromkeys(number for _, columns in cells for number in columns[0].tolist()))
    items = [words[number] for number in numbers]
    images = _images(run, [cell for cell, _ in cells if not cell.by_lm_eval])
    return TaskItems(
        items=items,
        images=[images.get(item) for item in items] if any(images.values()) else None,
        cells=[_cell(cell, numbers, *columns) for cell, columns in cells],
    )


def _images(run: RunDir, cells: Sequence[Cell]) -> dict[str, str | None]:
    """Id of an item of a task -> that of its image, by the predictions of its cells."""
    found: dict[str, str | None] = {}
    for cell in cells:
        if cell.n > len(found):
            lines = read_predictions(run.folder / str(cell.predictions), cell.sha256)
            found |= {line.id: line.group for line in lines}
    return found


def _cell(
    cell: Cell, numbers: list[int], item: Array, score: Array, weight: Array | None = None
) -> CellItems:
    """The columns of a cell in the order of `numbers`."""
    order = item.tolist()
    scores = dict(zip(order, _numbers(score), strict=True))
    weights = None
    if weight is not None and (weight != 1).any():
        own = dict(zip(order, weight.tolist(), strict=True))
        weights = [own.get(number, 0.0) for number in numbers]
    return CellItems(stage=cell.stage, scores=[scores.get(number) for number in numbers], weights=weights)


def _numbers(score: Array) -> list[int | float | None]:
    """The scores, whole ones as short numbers; None for those that are not numbers."""
    return [
        None if value != value else int(value) if value == int(value) else value for value in score.tolist()
    ]
