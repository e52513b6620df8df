"""What single items add to a metric."""

import pytest

from moextend.bench.report.items import ItemReader


def test_weighted_items_add_up_to_the_weighted_mean() -> None:
    found = ItemReader()._made(
        "t", [("a", 0.5, 6.0), ("b", 1.0, 2.0), ("c", 0.0, 0.0)], {"a": "i", "b": "i", "c": None}
    )
    assert found is not None
    assert found.mean == pytest.approx(62.5) and found.sums.sum() == pytest.approx(62.5)
    assert found.sums == pytest.approx([62.5, 0]) and found.deviations == pytest.approx([0, 0])


def test_items_without_weights_count_the_same() -> None:
    found = ItemReader()._made("t", [("a", 0.5, None), ("b", 1.0, None)], {"a": None, "b": None})
    assert found is not None
    assert found.mean == 75 and list(found.sums) == [25, 50] and list(found.deviations) == [-12.5, 12.5]
    nothing = ItemReader()._made("t", [("a", 0.5, 0.0), ("b", 1.0, 0.0)], {"a": None, "b": None})
    assert nothing is not None and nothing.mean == 75, "no item has words"
