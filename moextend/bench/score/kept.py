"""The kept scores of items: checked against the score of their cell, and computed again where they do not fit it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moextend.bench.score.lines import DistinctLines, PredictionLine, Words, text_item
from moextend.bench.score.records import Cell
from moextend.bench.score.vqa import score_items, scores_path, write_scores
from moextend.bench.scorers import search
from moextend.errors import MoextendError, SpecError
from moextend.util.files import read_lines

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

log = logging.getLogger(__name__)

SAME = 1e-6
"""Points by which a score that is computed again may differ, for sums in another order."""


@dataclass(frozen=True)
class ItemScores:
    """Scores of the items of one cell, in the order of the file."""

    item: Array
    """[items], numbers of their ids."""
    score: Array
    """[items], 0..1 for most; NaN where an item counts only together with another one."""
    weight: Array
    """[items], in the mean; 1 if the scorer has no weights."""

    def are_of(self, items: Array) -> bool:
        """Whether they are the scores of these items, in any order."""
        return len(items) == len(self.item) and bool(np.array_equal(np.sort(items), np.sort(self.item)))

    def of(self, items: Array) -> Array:
        """[items], the scores of these items."""
        if np.array_equal(items, self.item):
            return self.score
        found = np.full(int(self.item.max(initial=-1)) + 1, np.nan)
        found[self.item] = self.score
        return found[items]


class ScoreReader:
    """Reads the item scores of cells of image tasks.

    Scores that are kept next to the predictions are taken if their mean is the score of the cell. Others are computed
    again from the predictions, and kept; a warning names a file that is damaged or was edited.
    """

    def __init__(self, ids: Words) -> None:
        self._ids = ids
        self._lines = DistinctLines(self._columns)

    def __call__(self, folder: Path, cell: Cell, workspace: Path) -> ItemScores:
        """The scores of a cell that has predictions, in the run folder `folder`.

        Raises:
            SpecError: the predictions do not give the score of the cell, or are damaged.
        """
        assert cell.predictions is not None, "the caller's own condition"
        path = folder / cell.predictions
        was_there = scores_path(path, cell.scorer).is_file()
        found = self._kept(path, cell)
        if found is not None:
            return found
        return self.again(folder, cell, workspace, read_predictions(path, cell.sha256), damaged=was_there)

    def is_right(self, folder: Path, cell: Cell) -> bool:
        """Whether the scores kept next to the predictions of a cell, if any, give its score."""
        assert cell.predictions is not None, "the caller's own condition"
        path = folder / cell.predictions
        return not scores_path(path, cell.scorer).is_file() or self._kept(path, cell) is not None

    def _kept(self, path: Path, cell: Cell) -> ItemScores | None:
        """The scores kept next to predictions; None where there are none, or they do not give the score of the cell."""
        try:
            found = ItemScores(*self._lines.read(scores_path(path, cell.scorer), signed=True))
        except (SpecError, KeyError, TypeError, ValueError):
            return None
        return found if fits(cell, found) else None

    def again(
        self,
        folder: Path,
        cell: Cell,
        workspace: Path,
        records: Sequence[PredictionLine],
        *,
        damaged: bool = True,
    ) -> ItemScores:
        """The scores computed from the predictions; they replace the kept ones, which a warning names if `damaged`.

        Raises:
            SpecError: they do not give the score of the cell.
        """
        assert cell.predictions is not None, "the caller's own condition"
        path = folder / cell.predictions
        search(workspace)
        items = score_items(records, cell.scorer)[1] if records else []
        found = ItemScores(
            self._ids.numbers(item.id for item in items),
            np.array([item.score for item in items], float),
            np.array([1.0 if item.weight is None else item.weight for item in items], float),
        )
        if items and not fits(cell, found):
            raise SpecError(
                f"the answers do not give the recorded score of {cell.value:.4f}: the file was edited.",
                where=str(path),
                hint="Restore the original file, or run again.",
            )
        if damaged:  # else there were none, or another process has just written them
            log.warning(
                "%s: does not give the recorded score of %s after stage %d: the file is damaged or was edited. The "
                "scores of its items are computed again from the predictions.",
                scores_path(path, cell.scorer), cell.task, cell.stage,
            )  # fmt: skip
        if path.is_file():  # else the run is being removed, and what is written now would stay
            with suppress(MoextendError, OSError):  # read-only, or a full disk: computed again next time
                write_scores(path, cell.scorer, items)
        return found

    def _columns(self, lines: list[Any]) -> list[Array]:
        scores = np.array([line["score"] for line in lines], float)
        weights = np.array([line.get("weight", 1.0) for line in lines], float)
        return [self._ids.numbers(line["id"] for line in lines), scores, weights]


def fits(cell: Cell, scores: ItemScores) -> bool:
    """Whether these are as many scores as the cell counts, with its mean."""
    alone = ~np.isnan(scores.score)
    known, weight = scores.score[alone], scores.weight[alone]
    if not len(known) or cell.n != len(known):
        return False
    mean = float(np.average(known, weights=weight if weight.any() else None))
    return abs(100 * mean - cell.value) < SAME


def read_predictions(path: Path, sha256: str) -> list[PredictionLine]:
    """The predictions of an image task; SpecError or pydantic.ValidationError if the file is damaged.

    Args:
        path: the file.
        sha256: of its content, as the cell records it.
    """
    return [PredictionLine.read(line) for line in read_lines(path, sha256)]


def text_scores(ids: Words, lines: list[Any]) -> list[Array]:
    """Items and scores of the lines of a text task; of the line with the summary and of items without a number, NaN."""
    scores = [
        float(line["right"]) if isinstance(line.get("right"), int | float) else np.nan for line in lines
    ]
    items = [None if "summary" in line else text_item(line) for line in lines]
    return [ids.numbers(items), np.array(scores, float)]
