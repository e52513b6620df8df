"""What single items add to a metric."""

import numpy as np
import pytest

from moextend.bench.report.items import ItemReader


def test_weighted_items_add_up_to_the_weighted_mean() -> None:
    weights = np.array([6.0, 2.0, 0.0])
    found = ItemReader()._made("t", np.arange(3), np.array([0.5, 1, 0]), weights, {0: "i", 1: "i", 2: None})
    assert found is not None
    assert found.mean == pytest.approx(62.5) and found.sums.sum() == pytest.approx(62.5)
    assert found.sums == pytest.approx([62.5, 0]) and found.deviations == pytest.approx([0, 0])


def test_the_order_of_items_does_not_matter() -> None:
    reader = ItemReader()
    groups = {0: "i", 1: "i", 2: "j"}
    one = reader._made("t", np.arange(3), np.array([1.0, 0, 1]), np.ones(3), groups)
    two = reader._made("t", np.array([1, 0, 2]), np.array([0.0, 1, 1]), np.ones(3))
    assert one is not None and two is not None
    assert list(one.grouping.cluster) == list(two.grouping.cluster) and list(one.sums) == list(two.sums)


def test_items_without_weights_count_the_same() -> None:
    items, score = np.arange(2), np.array([0.5, 1])
    found = ItemReader()._made("t", items, score, np.ones(2))
    assert found is not None
    assert found.mean == 75 and list(found.sums) == [25, 50] and list(found.deviations) == [-12.5, 12.5]
    nothing = ItemReader()._made("t", items, score, np.zeros(2))
    assert nothing is not None and nothing.mean == 75, "no item has words"


def test_an_item_without_an_image_is_one_cluster_in_all_visits_of_its_task() -> None:
    reader, items, score = ItemReader(), np.arange(3), np.ones(3)
    first = reader._made("t", items, score, score, dict.fromkeys(range(3)), "t")
    again = reader._made("t-visit2", items, score, score, dict.fromkeys(range(3)), "t")
    other = reader._made("u", items, score, score, dict.fromkeys(range(3)), "u")
    assert first is not None and again is not None and other is not None
    assert list(first.grouping.cluster) == list(again.grouping.cluster)
    assert not set(first.grouping.cluster) & set(other.grouping.cluster)
