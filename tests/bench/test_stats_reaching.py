"""Curves of scores over budgets, worked out by hand."""

import math

import pytest

from moextend.bench.stats.reaching import Place, at, common_score, over_seeds, reached


@pytest.mark.parametrize(
    ("target", "place"),
    [
        (30.0, Place(0, 0.0)),  # the smallest budget has it already
        (40.0, Place(0, 0.0)),
        (45.0, Place(0, 0.25)),
        (60.0, Place(0, 1.0)),
        (65.0, Place(2, 0.75)),  # the curve falls to 50 first
        (70.0, Place(2, 1.0)),
        (70.1, None),
    ],
)
def test_the_first_place_that_reaches_a_score(target: float, place: Place | None) -> None:
    assert reached([40.0, 60.0, 50.0, 70.0], target) == place
    if place and not place.is_first:
        assert at([40.0, 60.0, 50.0, 70.0], place) == pytest.approx(target)


def test_costs_lie_on_straight_lines_between_budgets() -> None:
    assert at([10.0, 20.0, 40.0], Place(1, 0.25)) == 25.0
    assert at([10.0, 20.0, 40.0], Place(2, 0.0)) == 40.0
    assert reached([], 1.0) is None


def test_the_common_score_is_one_that_all_curves_reach() -> None:
    curves = [[40.0, 66.0, 65.0], [50.0, 61.0], [20.0, 80.0]]
    assert common_score(curves) == 61.0
    assert all(reached(curve, 61.0) for curve in curves)


def test_ratios_over_seeds_are_geometric_with_the_interval_of_t() -> None:
    found = over_seeds([0.5, 2.0])
    half = 12.706204736 * math.log(4) / 2  # t(1, 97.5%) times the standard error of log 1/2 and log 2
    assert found.mean == pytest.approx(1.0)
    assert found.low == pytest.approx(math.exp(-half)) and found.high == pytest.approx(math.exp(half))
    assert over_seeds([3.0]).low is None and over_seeds([3.0]).mean == pytest.approx(3.0)
