"""What single items add to a run's metrics, by image: the ground of every test in a comparison."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench import stats
from moextend.bench.report.collect import Result
from moextend.bench.run.rundir import Cell
from moextend.bench.score.predictions import PredictionLine, text_item
from moextend.bench.score.vqa import item_scores, kept_scores
from moextend.bench.scorers import search
from moextend.util.files import read_lines

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

    names: list[str]
    cluster: Array
    """Numbers of the clusters."""
    at: Array
    """[items], place in `cluster`."""
    weight: Array
    """[items], in the mean; 1 on average."""
    sizes: Array
    """[clusters], part of the weight."""

    def items(self, score: Array) -> Items:
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


class ItemReader:
    """Reads the items of the runs of one experiment, each file once.

    A cluster is an image, whichever tasks ask about it, or an item that has none.
    """

    def __init__(self) -> None:
        self._clusters: dict[Hashable, int] = {}
        self._places: dict[str, dict[str, int]] = {}
        self._grouping: dict[str, Grouping] = {}
        self._read: dict[tuple[Path, str], Items | None] = {}

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
        if cell is None or cell.predictions is None:
            return None
        path = result.run.folder / cell.predictions
        key = (path, cell.scorer)
        if key not in self._read:
            try:
                read = self._text(path, task) if cell.by_lm_eval else self._vqa(path, task, cell, result)
                self._read[key] = read
            except Exception as error:  # as if they were not kept: one damaged file hides no other run
                self._read[key] = None
                result.note_damage(task, error)
        return self._read[key]

    def _text(self, path: Path, task: str) -> Items | None:
        lines = [line for line in read_lines(path) if isinstance(line.get("right"), int | float)]
        names = [text_item(line) for line in lines]
        alone = [(name, float(line["right"]), None) for name, line in zip(names, lines, strict=True)]
        return self._made(task, alone, dict.fromkeys(names))

    def _vqa(self, path: Path, task: str, cell: Cell, result: Result) -> Items | None:
        groups: dict[str, str | None] = {}
        kept = kept_scores(path, cell.scorer)
        if not self._same_items(task, [line["id"] for line in kept]):
            search(result.config.workspace)
            records = [PredictionLine.read(line) for line in read_lines(path)]
            groups = {record.id: record.group for record in records}
            kept = [vars(item) for item in item_scores(records, kept, path, cell.scorer)]
        alone = [
            (line["id"], line["score"], line.get("weight")) for line in kept if line["score"] is not None
        ]
        return self._made(task, alone, groups)

    def _same_items(self, task: str, names: list[str]) -> bool:
        """Whether these are the items of a file of this task that was read before, with their images."""
        before, known = self._grouping.get(task), self._places.get(task, {})
        if before and before.names == names:
            return True
        return bool(names) and len(names) == len(known) and all(name in known for name in names)

    def _made(
        self, task: str, alone: Sequence[tuple[str, float, float | None]], groups: Mapping[str, str | None]
    ) -> Items | None:
        """From the name, score and weight of the items that are scored alone."""
        import numpy as np

        if not alone:
            return None
        names = [name for name, _, _ in alone]
        weight = np.array([1.0 if own is None else own for _, _, own in alone])
        weight = weight / weight.mean() if weight.any() else np.ones(len(alone))
        places = self._places.setdefault(task, {})
        for name, group in groups.items():
            own: Hashable = ("image", group) if group else (task, name)
            places[name] = self._clusters.setdefault(own, len(self._clusters))
        grouping = self._grouping.get(task)
        if grouping is None or grouping.names != names or not np.array_equal(grouping.weight, weight):
            cluster, at = np.unique([places[name] for name in names], return_inverse=True)
            sizes = np.bincount(at, weights=weight) / len(names)
            grouping = Grouping(names, cluster, at, weight, sizes)
            self._grouping[task] = grouping
        return grouping.items(100 * np.array([score for _, score, _ in alone], float))


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
