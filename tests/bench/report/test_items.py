"""What single items add to a metric."""

import numpy as np
import pytest

from moextend.bench.report.items import ItemReader, Items
from moextend.bench.score.kept import even


def made(scores: list[float], weights: list[float], groups: list[str | None]) -> Items:
    found = ItemReader()._made(
        "t", np.arange(len(scores)), np.array(scores), even(np.array(weights)), dict(enumerate(groups))
    )
    assert found is not None
    return found


def test_weighted_items_add_up_to_the_weighted_mean() -> None:
    found = made([0.5, 1.0, 0.0], [6, 2, 0], ["i", "i", None])
    assert found.mean == pytest.approx(62.5) and found.sums.sum() == pytest.approx(62.5)
    assert found.sums == pytest.approx([62.5, 0]) and found.deviations == pytest.approx([0, 0])


@pytest.mark.parametrize("weight", [1, 0])
def test_items_without_weights_count_the_same(weight: float) -> None:
    found = made([0.5, 1.0], [weight] * 2, [None, None])
    assert found.mean == 75 and list(found.sums) == [25, 50] and list(found.deviations) == [-12.5, 12.5]
