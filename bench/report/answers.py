"""The answers of a cell, item by item, with words as numbers: what the frame of results is made of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.report.collect import Result
from moextend.bench.score.predictions import PredictionLine, text_item
from moextend.bench.score.records import Cell
from moextend.bench.score.vqa import item_scores, kept_scores
from moextend.bench.scorers import search
from moextend.util.files import read_lines

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

NONE = -1
"""Number of a word that is not there."""


class Words:
    """Words and their numbers, in the order in which they come."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def numbers(self, words: Iterable[str | None]) -> Array:
        """The number of each word; NONE for None."""
        import numpy as np

        known = self._known
        found = [NONE if word is None else known.setdefault(word, len(known)) for word in words]
        return np.array(found, np.int32)

    def words(self) -> list[str]:
        """The words by number."""
        return list(self._known)


@dataclass(frozen=True)
class Answers:
    """The items of one cell; all arrays are [items], words as numbers."""

    item: Array
    kind: Array
    group: Array
    answer: Array
    score: Array
    """As the scorer counts, 0..1 for most; NaN where an item has no score of its own."""

    def __len__(self) -> int:
        return len(self.item)


class AnswerReader:
    """Reads the answers of many cells; files of the same content once."""

    def __init__(self) -> None:
        self.item, self.kind, self.group, self.answer = Words(), Words(), Words(), Words()
        self._read: dict[tuple[str, str], Answers | None] = {}

    def __call__(self, result: Result, cell: Cell) -> Answers | None:
        """The answers of a cell; None where they are not kept or damaged, which `result.lacks` names."""
        if cell.predictions is None:
            return None
        path = result.run.folder / cell.predictions
        key = (cell.sha256 or str(path), cell.scorer)
        if key not in self._read:
            try:
                read = self._text(path, cell) if cell.by_lm_eval else self._vqa(path, cell, result)
                self._read[key] = read
            except Exception as error:  # as if they were not kept: one damaged file hides no other cell
                self._read[key] = None
                result.note_damage(cell.task, error)
        return self._read[key]

    def _text(self, path: Path, cell: Cell) -> Answers | None:
        lines = [line for line in read_lines(path) if "summary" not in line]
        scores = [line["right"] if isinstance(line.get("right"), int | float) else None for line in lines]
        kinds = [line["task"] if cell.by_kind else None for line in lines]
        items = [text_item(line) for line in lines]
        return self._made(
            items, kinds, [None] * len(lines), [line.get("prediction") for line in lines], scores
        )

    def _vqa(self, path: Path, cell: Cell, result: Result) -> Answers | None:
        lines = read_lines(path)
        kept = kept_scores(path, cell.scorer)
        scores = {line["id"]: line["score"] for line in kept}
        if len(scores) != len(lines) or any(line["id"] not in scores for line in lines):
            search(result.config.workspace)
            records = [PredictionLine.read(line) for line in lines]
            scores = {item.id: item.score for item in item_scores(records, kept, path, cell.scorer)}
        return self._made(
            [line["id"] for line in lines], [line.get("kind") for line in lines],
            [line.get("group") for line in lines], [line["prediction"] for line in lines],
            [scores[line["id"]] for line in lines],
        )  # fmt: skip

    def _made(
        self, items: list[str], kinds: list[str | None], groups: list[str | None], answers: list[Any],
        scores: list[float | None],
    ) -> Answers | None:  # fmt: skip
        import numpy as np

        if not items:
            return None
        texts = [answer if isinstance(answer, str | None) else json.dumps(answer) for answer in answers]
        return Answers(
            self.item.numbers(items),
            self.kind.numbers(kinds),
            self.group.numbers(groups),
            self.answer.numbers(texts),
            np.array(scores, float),
        )
