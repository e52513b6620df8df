"""The items of cells: their answers, for the frame and the page, and what they add to a run's metrics, for tests."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

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
    """Reads the items of many cells; files of the same content once, as far as they are kept.

    Args:
        most: how many files are kept; None: all.
    """

    def __init__(self, most: int | None = None) -> None:
        self.item = Words()
        self._most = most
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
            key = (cell.sha256 or str(result.run.folder / cell.predictions), cell.scorer, cell.task)
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

    def __init__(self, most: int | None = None) -> None:
        super().__init__(most)
        self.kind, self.group, self.answer = Words(), Words(), Words()
        self._predictions = DistinctLines(self._asked)
        self._texts = [DistinctLines(partial(self._text_columns, by_kind)) for by_kind in (False, True)]

    def _packed(self, result: Result, cell: Cell) -> Answers | None:
        found = packed_scores(result, cell, self.item)
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

    def scored(self, score: Array) -> Items:
        """From the items' scores in points."""
        import numpy as np

        weighted = self.weight * score
        return Items(self, np.bincount(self.at, weights=weighted) / len(score), weighted.mean())


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


def mean_parts(found: Sequence[Parts]) -> Parts:
    """The mean of a metric over several runs, as a sum over the clusters of all."""
    import numpy as np

    size = max(len(parts.sums) for parts in found)

    def padded(name: str) -> Array:
        return np.array([np.pad(getattr(one, name), (0, size - len(one.sums))) for one in found])

    return Parts(
        padded("sums").mean(0),
        padded("deviations").mean(0),
        padded("present").max(0),
        max(parts.floor for parts in found),
    )


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
        import numpy as np

        cells = {key: result.cells.get((key[0] if at is None else at, key[1])) for key in weights}
        found = {
            key: items for key, cell in cells.items() if cell and (items := self(result, cell)) is not None
        }
        if len(found) < len(cells) or not cells:
            return None
        size = len(self._clusters)
        sums, deviations = np.zeros(size), np.zeros(size)
        present = np.zeros(size, bool)
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
        known = score == score
        return self._made(cell.task, item[known], score[known], known[known].astype(float))

    def _vqa(self, result: Result, cell: Cell) -> Items | None:
        groups: dict[int, str | None] = {}
        run = (result.run.folder, cell, result.config.workspace)
        found = self._scores(*run)
        if not self._same_items(cell.task, found.item):
            records = read_predictions(result.run.folder / str(cell.predictions), cell.sha256)
            items = self.item.numbers(record.id for record in records)
            groups = dict(zip(items.tolist(), [record.group for record in records], strict=True))
            if records and not found.are_of(items):
                found = self._scores.again(*run, records)
        return self._alone(result, cell, found, groups)

    def _packed(self, result: Result, cell: Cell) -> Items | None:
        packed = packed_scores(result, cell, self.item)
        if packed is None:
            return None
        found, images = packed
        known = self._same_items(cell.task, found.item)
        return self._alone(
            result, cell, found, {} if known else dict(zip(found.item.tolist(), images, strict=True))
        )

    def _alone(
        self, result: Result, cell: Cell, found: ItemScores, groups: Mapping[int, str | None]
    ) -> Items | None:
        """Of the items that have a score of their own; see `_made`."""
        alone, visited = found.score == found.score, result.config.visited(cell.task)
        return self._made(
            cell.task, found.item[alone], found.score[alone], found.weight[alone], groups, visited
        )

    def _same_items(self, task: str, items: Array) -> bool:
        """Whether these are the items of a file of this task that was read before, with their images."""
        import numpy as np

        before, known = self._grouping.get(task), self._places.get(task, {})
        if before and np.array_equal(before.items, items):
            return True
        return len(items) > 0 and len(items) == len(known) and known.keys() >= set(items.tolist())

    def _made(
        self,
        task: str,
        items: Array,
        score: Array,
        weight: Array,
        groups: Mapping[int, str | None] | None = None,
        visited: str = "",
    ) -> Items | None:
        """From items with scores of their own.

        Args:
            groups: the images of items that were not read before.
            visited: the task of which `task` is a visit, if it has another name.
        """
        import numpy as np

        if not len(items):
            return None
        weight = weight / weight.mean() if weight.any() else np.ones(len(items))
        grouping = self._grouping.get(task)
        if (
            grouping is None
            or groups
            or not np.array_equal(grouping.items, items)
            or not np.array_equal(grouping.weight, weight)
        ):
            names = items.tolist()
            places = self._places.setdefault(task, {})
            for name, group in (groups or {name: None for name in names if name not in places}).items():
                own: Hashable = ("image", group) if group else (visited or task, name)
                places[name] = self._clusters.setdefault(own, len(self._clusters))
            cluster, at = np.unique([places[name] for name in names], return_inverse=True)
            sizes = np.bincount(at, weights=weight) / len(names)
            grouping = Grouping(items, cluster, at, weight, sizes)
            self._grouping[task] = grouping
        return grouping.scored(100 * score)


def contrast(values: list[float], pairs: list[tuple[Parts, Parts]]) -> stats.Contrast | None:
    """The first run of each pair less the second, over seeds; None where the items make fewer than two clusters."""
    import numpy as np

    size = max(len(part.sums) for pair in pairs for part in pair)

    def rows(name: str) -> tuple[Array, Array]:
        padded = [
            [np.pad(getattr(part, name), (0, size - len(part.sums))) for part in pair] for pair in pairs
        ]
        first, second = np.swapaxes(np.array(padded), 0, 1)
        return first, second

    present = np.logical_or(*rows("present")).any(axis=0)
    if present.sum() < 2:
        return None
    mine, theirs = rows("sums")
    first, second = rows("deviations")
    changed = (abs(mine - theirs) > 1e-12).any(axis=0).sum()
    floor = max(part.floor for pair in pairs for part in pair)
    return stats.contrast(values, (first - second)[:, present], changed=int(changed), floor=floor)
