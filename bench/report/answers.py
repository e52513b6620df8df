"""The answers of a cell, item by item, with words as numbers: what the frame of results is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from moextend.bench.report.collect import Result
from moextend.bench.run.items import NAME as ITEMS
from moextend.bench.score.kept import ItemScores, ScoreReader, fits, read_predictions, text_scores
from moextend.bench.score.lines import NONE, DistinctLines, Words
from moextend.bench.score.records import Cell
from moextend.errors import SpecError

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]


@dataclass(frozen=True)
class Answers:
    """The items of one cell; all arrays are [items], words as numbers."""

    item: Array
    kind: Array
    group: Array
    answer: Array
    """None has a number where a pack left the answers out."""
    score: Array
    """As the scorer counts, 0..1 for most; NaN where an item has no score of its own."""

    def __len__(self) -> int:
        return len(self.item)


class AnswerReader:
    """Reads the answers of many cells; files of the same content once, as far as they are kept.

    Args:
        most: how many files are kept; None: all.
    """

    def __init__(self, most: int | None = None) -> None:
        self.item, self.kind, self.group, self.answer = Words(), Words(), Words(), Words()
        self._most = most
        self._read: dict[tuple[str, str], Answers | None] = {}
        self._before: dict[str, Answers] = {}
        self._scores = ScoreReader(self.item)
        self._predictions = DistinctLines(self._asked)
        self._texts = [DistinctLines(partial(self._text_columns, by_kind)) for by_kind in (False, True)]

    def __call__(self, result: Result, cell: Cell) -> Answers | None:
        """The answers of a cell; None where they are not kept or damaged, which `result.lacks` names.

        Of a run from a pack without predictions, they are the items and their scores alone.
        """
        if result.bare:
            key = (str(result.run.folder), f"{cell.stage} {cell.task}")
        elif cell.predictions is None:
            return None
        else:
            key = (cell.sha256 or str(result.run.folder / cell.predictions), cell.scorer)
        if key not in self._read:
            if len(self._read) == self._most:
                del self._read[next(iter(self._read))]
            try:
                own = self._packed if result.bare else self._text if cell.by_lm_eval else self._vqa
                self._read[key] = own(result, cell)
            except Exception as error:  # as if they were not kept: one damaged file hides no other cell
                self._read[key] = None
                result.note_damage(cell.task, error)
        return self._read[key]

    def _packed(self, result: Result, cell: Cell) -> Answers | None:
        found = packed_scores(result, cell, self.item)
        if found is None:
            return None
        scores, images = found
        none = self.answer.numbers([None] * len(images))
        return self._made(cell, Answers(scores.item, none, self.group.numbers(images), none, scores.score))

    def _text(self, result: Result, cell: Cell) -> Answers | None:
        columns = self._texts[bool(cell.by_kind)].read(result.run.folder / str(cell.predictions), cell.sha256)
        return self._made(cell, Answers(*(column[columns[0] != NONE] for column in columns)))

    def _vqa(self, result: Result, cell: Cell) -> Answers | None:
        path = result.run.folder / str(cell.predictions)
        item, kind, group, answer = self._predictions.read(path, cell.sha256)
        if not len(item):
            return None
        scores = self._scores(result.run.folder, cell, result.config.workspace)
        if not scores.are_of(item):
            scores = self._scores.again(
                result.run.folder, cell, result.config.workspace, read_predictions(path, cell.sha256)
            )
        return self._made(cell, Answers(item, kind, group, answer, scores.of(item)))

    def _asked(self, lines: list[Any]) -> list[Array]:
        """Item, kind, group and answer of lines of predictions."""
        return [
            self.item.numbers(line["id"] for line in lines),
            self.kind.numbers(line.get("kind") for line in lines),
            self.group.numbers(line.get("group") for line in lines),
            self.answer.numbers(line["prediction"] for line in lines),
        ]

    def _text_columns(self, by_kind: bool, lines: list[Any]) -> list[Array]:
        """Item, kind, group, answer and score of lines of a text task."""
        item, score = text_scores(self.item, lines)
        kinds = self.kind.numbers(line.get("task") if by_kind else None for line in lines)
        answers = [line.get("prediction") for line in lines]
        texts = [answer if isinstance(answer, str | None) else json.dumps(answer) for answer in answers]
        return [item, kinds, self.group.numbers([None] * len(lines)), self.answer.numbers(texts), score]

    def _made(self, cell: Cell, found: Answers) -> Answers | None:
        """The answers, with the arrays of the same task's cell before where they are equal."""
        import numpy as np

        if not len(found):
            return None
        before = self._before.setdefault(cell.task, found)
        for name in ("item", "kind", "group"):
            if not np.array_equal(getattr(before, name), getattr(found, name)):
                self._before[cell.task] = found
                return found
        return replace(found, item=before.item, kind=before.kind, group=before.group)


def packed_scores(result: Result, cell: Cell, ids: Words) -> tuple[ItemScores, list[str | None]] | None:
    """The item scores of a cell of a run from a pack without predictions, and the ids of their images, if any.

    Raises:
        SpecError: they do not give the score of the cell, or the file is damaged.
    """
    import numpy as np

    found = result.packed.of(cell.stage, cell.task)
    if found is None:
        return None
    task, own = found
    weights = np.ones(len(task.items)) if own.weights is None else np.array(own.weights, float)
    scores = ItemScores(ids.numbers(task.items), np.array(own.scores, float), weights)
    if not cell.by_lm_eval and not fits(cell, scores):
        raise SpecError(
            f"the scores of items do not give that of {cell.task} after stage {cell.stage}: the file was edited.",
            where=str(result.run.folder / ITEMS),
            hint="Unpack the run again.",
        )
    return scores, task.images or [None] * len(task.items)
