"""What single items add to a metric."""

import numpy as np
import pytest

from moextend.bench.report.items import ItemReader
from moextend.bench.score.kept import ItemScores


def test_weighted_items_add_up_to_the_weighted_mean() -> None:
    scores = ItemScores(np.arange(3), np.array([0.5, 1, 0]), np.array([6.0, 2.0, 0.0]))
    found = ItemReader().grouped("t", "t", scores, {0: "i", 1: "i", 2: None})
    assert found is not None
    assert found.mean == pytest.approx(62.5) and found.sums.sum() == pytest.approx(62.5)
    assert found.sums == pytest.approx([62.5, 0]) and found.deviations == pytest.approx([0, 0])


def test_an_item_without_an_image_is_one_cluster_in_all_visits_of_its_task() -> None:
    reader, scores = ItemReader(), ItemScores(np.arange(3), np.ones(3), np.ones(3))
    names = {"t": "t", "t-visit2": "t", "u": "u"}
    first, again, other = (reader.grouped(task, visited, scores, {}) for task, visited in names.items())
    assert first is not None and again is not None and other is not None
    assert list(first.grouping.cluster) == list(again.grouping.cluster)
    assert not set(first.grouping.cluster) & set(other.grouping.cluster)
