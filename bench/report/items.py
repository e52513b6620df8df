"""What single items add to a run's metrics, by image: the ground of every test in a comparison."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench import stats
from moextend.bench.report.answers import packed_scores
from moextend.bench.report.collect import Result
from moextend.bench.run.rundir import Cell
from moextend.bench.score.kept import ItemScores, ScoreReader, read_predictions, text_scores
from moextend.bench.score.lines import DistinctLines, Words

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

Weights = Mapping[tuple[int, str], float]
"""(stage, task) -> weight of the cell in a metric."""


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


class ItemReader:
    """Reads the items of the runs of one experiment, each file once.

    A cluster is an image, whichever tasks ask about it, or an item that has none, in all visits of its task.
    """

    def __init__(self) -> None:
        self._clusters: dict[Hashable, int] = {}
        self._places: dict[str, dict[int, int]] = {}
        self._grouping: dict[str, Grouping] = {}
        self._read: dict[tuple[Path, str], Items | None] = {}
        self._ids = Words()
        self._scores, self._texts = ScoreReader(self._ids), DistinctLines(partial(text_scores, self._ids))

    def parts(self, result: Result, weights: Weights, *, at: int | None = None) -> Parts | None:
        """What the clusters add to sum_cells weight score; None where a cell's items are not kept.

        `at` takes all cells of that stage instead of their own.
        """
        import numpy as np

        cells = {key: self._items(result, key[0] if at is None else at, key[1]) for key in weights}
        found = {key: items for key, items in cells.items() if items is not None}
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

    def _items(self, result: Result, stage: int, task: str) -> Items | None:
        cell = result.cells.get((stage, task))
        if cell is None:
            return None
        if result.bare:
            key, read = (result.run.folder, f"{stage} {task}"), partial(self._packed, result, cell)
        elif cell.predictions is None:
            return None
        else:
            path = result.run.folder / cell.predictions
            key = (path, cell.scorer)
            read = partial(self._text, path, cell) if cell.by_lm_eval else partial(self._vqa, result, cell)
        if key not in self._read:
            try:
                self._read[key] = read()
            except Exception as error:  # as if they were not kept: one damaged file hides no other run
                self._read[key] = None
                result.note_damage(task, error)
        return self._read[key]

    def _text(self, path: Path, cell: Cell) -> Items | None:
        item, score = self._texts.read(path, cell.sha256)
        known = score == score
        return self._made(cell.task, item[known], score[known], known[known].astype(float))

    def _vqa(self, result: Result, cell: Cell) -> Items | None:
        groups: dict[int, str | None] = {}
        run = (result.run.folder, cell, result.config.workspace)
        found = self._scores(*run)
        if not self._same_items(cell.task, found.item):
            records = read_predictions(result.run.folder / str(cell.predictions), cell.sha256)
            items = self._ids.numbers(record.id for record in records)
            groups = dict(zip(items.tolist(), [record.group for record in records], strict=True))
            if records and not found.are_of(items):
                found = self._scores.again(*run, records)
        return self._alone(result, cell, found, groups)

    def _alone(
        self, result: Result, cell: Cell, found: ItemScores, groups: Mapping[int, str | None]
    ) -> Items | None:
        """Of the items that have a score of their own; see `_made`."""
        alone = found.score == found.score
        visited = result.config.visited(cell.task)
        return self._made(
            cell.task, found.item[alone], found.score[alone], found.weight[alone], groups, visited
        )

    def _packed(self, result: Result, cell: Cell) -> Items | None:
        """From the item scores of a run from a pack."""
        packed = packed_scores(result, cell, self._ids)
        if packed is None:
            return None
        found, images = packed
        known = self._same_items(cell.task, found.item)
        groups = {} if known else dict(zip(found.item.tolist(), images, strict=True))
        return self._alone(result, cell, found, groups)

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
