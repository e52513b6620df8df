"""The items of cells: their answers, for the frame and the page, and what they add to a run's metrics, for tests."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from moextend.bench import stats
from moextend.bench.report.collect import Result
from moextend.bench.run.items import NAME as ITEMS
from moextend.bench.score.kept import ItemScores, ScoreReader, fits, read_predictions, text_scores
from moextend.bench.score.lines import NONE, DistinctLines, Words
from moextend.bench.score.records import Cell
from moextend.errors import SpecError

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

T = TypeVar("T")
Weights = Mapping[tuple[int, str], float]
"""(stage, task) -> weight of the cell in a metric."""


class CellReader(Generic[T]):
    """Reads the items of many cells; files of the same content once."""

    def __init__(self) -> None:
        self.item = Words()
        self._read: dict[tuple[str, str, str], T | None] = {}
        self._scores = ScoreReader(self.item)

    def __call__(self, result: Result, cell: Cell) -> T | None:
        """The items of a cell; None where they are not kept or damaged, which `result.lacks` names.

        Of a run from a pack without predictions, they are the items and their scores alone.
        """
        if result.bare:
            key = (str(result.run.folder), f"{cell.stage} {cell.task}", "")
        elif cell.predictions is None:
            return None
        else:
            key = (cell.sha256, cell.scorer, cell.task)
        if key not in self._read:
            try:
                own = self._packed if result.bare else self._text if cell.by_lm_eval else self._vqa
                self._read[key] = own(result, cell)
            except Exception as error:  # as if they were not kept: one damaged file hides no other cell
                self._read[key] = None
                result.note_damage(cell.task, error)
        return self._read[key]

    def _packed_scores(self, result: Result, cell: Cell) -> tuple[ItemScores, list[str | None]] | None:
        """The item scores of a cell of a run from a pack without predictions, and the ids of their images, if any.

        Raises:
            SpecError: they do not give the score of the cell, or the file is damaged.
        """
        found = result.packed.of(cell.stage, cell.task)
        if found is None:
            return None
        task, own = found
        weights = np.ones(len(task.items)) if own.weights is None else np.array(own.weights, float)
        scores = ItemScores(self.item.numbers(task.items), np.array(own.scores, float), weights)
        if not cell.by_lm_eval and not fits(cell, scores):
            raise SpecError(
                f"the scores of items do not give that of {cell.task} after stage {cell.stage}: the file was edited.",
                where=str(result.run.folder / ITEMS),
                hint="Unpack the run again.",
            )
        return scores, task.images or [None] * len(task.items)

    def _packed(self, result: Result, cell: Cell) -> T | None:
        raise NotImplementedError

    def _text(self, result: Result, cell: Cell) -> T | None:
        raise NotImplementedError

    def _vqa(self, result: Result, cell: Cell) -> T | None:
        raise NotImplementedError


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


class AnswerReader(CellReader[Answers]):
    """Reads answers, with words as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.group, self.answer = Words(), Words(), Words()
        self._predictions = DistinctLines(self._asked)
        self._texts = [DistinctLines(partial(self._text_columns, by_kind)) for by_kind in (False, True)]

    def _packed(self, result: Result, cell: Cell) -> Answers | None:
        found = self._packed_scores(result, cell)
        if found is None:
            return None
        scores, images = found
        none = self.answer.numbers([None] * len(images))
        return Answers(scores.item, none, self.group.numbers(images), none, scores.score)

    def _text(self, result: Result, cell: Cell) -> Answers | None:
        columns = self._texts[bool(cell.by_kind)].read(result.run.folder / str(cell.predictions), cell.sha256)
        found = Answers(*(column[columns[0] != NONE] for column in columns))
        return found if len(found) else None

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
        return Answers(item, kind, group, answer, scores.of(item))

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


@dataclass(frozen=True)
class Grouping:
    """The items of a file, in its order, and the clusters that they belong to."""

    items: Array
    """[items], numbers of their ids."""
    cluster: Array
    """Numbers of the clusters."""
    at: Array
    """[items], place in `cluster`."""
    weight: Array
    """[items], in the mean; 1 on average."""
    sizes: Array
    """[clusters], part of the weight."""


@dataclass(frozen=True)
class Items:
    """The items of one cell, by cluster."""

    grouping: Grouping
    sums: Array
    """[clusters], what each adds to the mean, in points."""
    mean: float

    @property
    def deviations(self) -> Array:
        """Likewise, less what a cluster of average items would add."""
        return self.sums - self.grouping.sizes * self.mean


@dataclass(frozen=True)
class Parts:
    """A metric of one run, as a sum over clusters."""

    sums: Array
    """[G]; they add up to the metric, as far as its items are scored alone."""
    deviations: Array
    """[G]; they add up to 0: sums less what a cluster of average items would add."""
    present: Array
    """[G], whether the cluster has items in this metric."""
    floor: float
    """See stats.unseen."""


def _stacked(found: Sequence[Parts], name: str) -> Array:
    """[parts, G] of one of their arrays; those that were made before all clusters were known end with zeros."""
    size = max(len(parts.sums) for parts in found)
    return np.array([np.pad(getattr(one, name), (0, size - len(one.sums))) for one in found])


def mean_parts(found: Sequence[Parts]) -> Parts:
    """The mean of a metric over several runs, as a sum over the clusters of all."""
    sums, deviations, present = (_stacked(found, name) for name in ("sums", "deviations", "present"))
    return Parts(sums.mean(0), deviations.mean(0), present.max(0), max(parts.floor for parts in found))


def contrast(values: list[float], pairs: list[tuple[Parts, Parts]]) -> stats.Contrast | None:
    """The first run of each pair less the second, over seeds; None where the items make fewer than two clusters."""
    every = [part for pair in pairs for part in pair]
    present = _stacked(every, "present").any(axis=0)
    if present.sum() < 2:
        return None
    sums, deviations = (_stacked(every, name) for name in ("sums", "deviations"))
    changed = (abs(sums[::2] - sums[1::2]) > 1e-12).any(axis=0).sum()
    difference = (deviations[::2] - deviations[1::2])[:, present]
    return stats.contrast(values, difference, changed=int(changed), floor=max(part.floor for part in every))


class ItemReader(CellReader[Items]):
    """Reads what the items of the runs of one experiment add to metrics.

    A cluster is an image, whichever tasks ask about it, or an item that has none, in all visits of its task.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clusters: dict[Hashable, int] = {}
        self._places: dict[str, dict[int, int]] = {}
        self._grouping: dict[str, Grouping] = {}
        self._texts = DistinctLines(partial(text_scores, self.item))

    def parts(self, result: Result, weights: Weights, *, at: int | None = None) -> Parts | None:
        """What the clusters add to sum_cells weight score; None where a cell's items are not kept.

        `at` takes all cells of that stage instead of their own.
        """
        cells = {key: result.cells.get((key[0] if at is None else at, key[1])) for key in weights}
        found = {
            key: items for key, cell in cells.items() if cell and (items := self(result, cell)) is not None
        }
        if len(found) < len(cells) or not cells:
            return None
        size = len(self._clusters)
        sums, deviations, present = np.zeros(size), np.zeros(size), np.zeros(size, bool)
        scale: dict[str, tuple[float, int]] = {}
        for key, items in found.items():
            cluster = items.grouping.cluster
            sums[cluster] += weights[key] * items.sums
            deviations[cluster] += weights[key] * items.deviations
            present[cluster] = True
            most, _ = scale.get(key[1], (0.0, 0))
            scale[key[1]] = max(most, abs(weights[key])), len(cluster)
        floor = sum(stats.unseen(100 * most, clusters) for most, clusters in scale.values())
        return Parts(sums, deviations, present, floor)

    def _text(self, result: Result, cell: Cell) -> Items | None:
        item, score = self._texts.read(result.run.folder / str(cell.predictions), cell.sha256)
        return self.grouped(cell.task, cell.task, ItemScores(item, score, np.ones(len(item))), {})

    def _vqa(self, result: Result, cell: Cell) -> Items | None:
        run, groups = (result.run.folder, cell, result.config.workspace), dict[int, str | None]()
        found = self._scores(*run)
        if not self._is_known(cell.task, found.item):
            records = read_predictions(result.run.folder / str(cell.predictions), cell.sha256)
            items = self.item.numbers(record.id for record in records)
            groups = dict(zip(items.tolist(), [record.group for record in records], strict=True))
            if records and not found.are_of(items):
                found = self._scores.again(*run, records)
        return self.grouped(cell.task, result.config.visited(cell.task), found, groups)

    def _packed(self, result: Result, cell: Cell) -> Items | None:
        if (packed := self._packed_scores(result, cell)) is None:
            return None
        found, images = packed
        groups = dict(zip(found.item.tolist(), images, strict=True))
        return self.grouped(cell.task, result.config.visited(cell.task), found, groups)

    def _is_known(self, task: str, items: Array) -> bool:
        """Whether these are items of a file of this task that was read before, with their images."""
        before = self._grouping.get(task)
        same = before is not None and np.array_equal(before.items, items)
        return same or (len(items) > 0 and self._places.get(task, {}).keys() >= set(items.tolist()))

    def grouped(
        self, task: str, visited: str, scores: ItemScores, groups: Mapping[int, str | None]
    ) -> Items | None:
        """The items with scores of their own, by cluster; None without any.

        Args:
            visited: the task of which `task` is a visit.
            groups: item -> its image, of items that were not read before.
        """
        alone = (scores.score == scores.score) & (scores.item != NONE)
        items, weight = scores.item[alone], scores.weight[alone]
        if not len(items):
            return None
        weight = weight / weight.mean() if weight.any() else np.ones(len(items))
        found = self._grouping.get(task)
        if (
            found is None
            or not np.array_equal(found.items, items)
            or not np.array_equal(found.weight, weight)
        ):
            names, places = items.tolist(), self._places.setdefault(task, {})
            for name in names:
                if name not in places:
                    group = groups.get(name)
                    own: Hashable = ("image", group) if group else (visited, name)
                    places[name] = self._clusters.setdefault(own, len(self._clusters))
            cluster, at = np.unique([places[name] for name in names], return_inverse=True)
            sizes = np.bincount(at, weights=weight) / len(names)
            found = self._grouping[task] = Grouping(items, cluster, at, weight, sizes)
        weighted = weight * (100 * scores.score[alone])
        return Items(found, np.bincount(found.at, weights=weighted) / len(items), weighted.mean())
