"""Statistics on cases computed by hand, and on data with known truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from moextend.bench import stats


def test_the_error_of_a_mean_counts_clusters() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    usual = math.sqrt(sum((v - 0.6) ** 2 for v in values) / 4 / 5)
    assert stats.clustered_error(values, range(5)) == pytest.approx(usual), "with lonely items the usual one"
    copied = stats.clustered_error(values * 5, [*range(5)] * 5)
    assert copied == pytest.approx(usual), "copies of an item in its cluster add no certainty"
    assert stats.clustered_error([0.0, 1.0], ["a", "a"]) is None


def made(values: list[float], deviations: list[list[float]]) -> stats.Contrast:
    return stats.contrast(values, np.array(deviations), changed=50)


def test_variances_by_hand() -> None:
    # Two seeds of 1 and 3: variance 2, of the mean 1. Item errors (1, -1) and (3, -3): covariance 6, times G/(G-1) = 2.
    found = made([1.0, 3.0], [[1.0, -1.0], [3.0, -3.0]])
    assert (found.value, found.seed_variance, found.item_variance) == (2.0, 1.0, 12.0)
    # One seed: the items' own, 1 + 1, times 2.
    alone = made([1.0], [[1.0, -1.0]])
    assert (alone.seed_variance, alone.item_variance) == (0.0, 4.0)
    # Errors of items that have nothing to do with each other over seeds add to the seeds' variance alone.
    assert made([0.0, 0.0], [[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]).item_variance == 0.0


def test_with_one_source_of_variance_it_is_the_t_test() -> None:
    from scipy.stats import ttest_1samp

    values = [1.0, 2.0, 4.0, 3.5]
    items = np.random.default_rng(0).normal(0.4, 1.0, 40)
    parts = (items - items.mean()) / 40
    cases = [(made(values, [[0.0] * 9] * 4), ttest_1samp(values, 0.0))]
    for seeds in (1, 2, 3, 10):
        found = stats.contrast([items.mean()] * seeds, np.array([parts] * seeds), changed=40)
        cases.append((found, ttest_1samp(items, 0.0)))
    for found, known in cases:
        assert found.p == pytest.approx(known.pvalue, rel=1e-4)
        assert found.interval() == pytest.approx(tuple(known.confidence_interval()))


def test_p_and_interval_agree() -> None:
    for seeds, item in ((1, 0.5), (2, 0.5), (3, 2.0), (10, 0.1)):
        found = stats.Contrast(3.0, 0.0 if seeds == 1 else 1.0, item, seeds, 80, 80)
        assert found.interval(found.p)[0] == pytest.approx(0.0, abs=1e-3)


def test_equivalence_is_two_one_sided_tests() -> None:
    found = stats.Contrast(0.3, 0.04, 0.01, 5, 500, 200)
    low, high = found.interval(0.10)
    assert max(abs(low), abs(high)) < 1.0 and found.p_equivalent(1.0) < 0.05
    assert found.p_equivalent(max(abs(low), abs(high))) == pytest.approx(0.05, rel=1e-3)
    assert found.p_equivalent(0.2) > 0.5, "the difference itself is larger than the margin"


def unanimous(value: float, items: int) -> stats.Contrast:
    """Three seeds in which all items differ alike."""
    floor = stats.unseen(100, items)
    return stats.contrast([value] * 3, np.zeros((3, items)), changed=items if value else 0, floor=floor)


def test_what_all_items_say_counts_only_if_they_are_many() -> None:
    corrected = stats.holm([unanimous(100.0, 200).p, *[1.0] * 2000])[0]
    assert stats.verdict(corrected, 1.0, unanimous(100.0, 200)) == "better", "in however large a table"
    assert unanimous(100.0, 3).p >= 0.25, "exchanging the methods in three items gives p = 1/4"
    few, many = unanimous(0.0, 40), unanimous(0.0, 2000)
    assert few.p == many.p == 1.0
    assert few.p_equivalent(1.0) > 0.05 > many.p_equivalent(1.0)


def test_verdicts() -> None:
    up = stats.Contrast(3.0, 1.0, 1.0, 3, 90, 90)
    down, split = replace(up, value=-3.0), replace(up, collapsed=True)
    assert stats.verdict(0.01, 0.9, up) == stats.verdict(0.01, 0.9, split) == "better"
    assert stats.verdict(0.01, 0.9, down) == "worse"
    assert stats.verdict(0.01, 0.01, down) == "equivalent", "certain, and within the margin"
    assert stats.verdict(0.20, 0.20, up) == "undecided"
    assert stats.verdict(0.20, 0.20, split) == "collapse"
    assert stats.verdict(0.001, 0.9, replace(up, seeds=1)) == "items only"


def test_runs_in_two_groups_far_apart_are_a_collapse() -> None:
    assert stats.collapsed([60.0, 61.0, 40.0]) and stats.collapsed([60.0, 41.0, 40.0])
    assert not stats.collapsed([60.0, 61.0, 52.0]), "within 10 points"
    assert not stats.collapsed([60.0, 50.0, 39.0]), "runs that differ all over"
    assert not stats.collapsed([60.0, 20.0]), "two runs have no groups"
    assert stats.unseen_collapses(3) == pytest.approx(0.63, abs=0.005), "0.37^3 = 0.05"


def test_these_runs_vary_by_items_alone() -> None:
    """Both seeds' items, by hand: means (2, -2) of (1, -1) and (3, -3), squared and summed 8, times G/(G-1) = 2."""
    found = made([1.0, 3.0], [[1.0, -1.0], [3.0, -3.0]]).of_these_runs
    assert (found.value, found.seed_variance, found.item_variance, found.seeds) == (2.0, 0.0, 16.0, 1)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert stats.holm([]) == []


def test_components_by_hand() -> None:
    # effects: seed -1/+1, order -2/+2, interaction +-0.5: MS_rest 1, MS_seed 4, MS_order 16
    values = {(0, "a"): -3 + 0.5, (0, "b"): 1 - 0.5, (1, "a"): -1 - 0.5, (1, "b"): 3 + 0.5}
    found = stats.components(values)
    assert found.rest == pytest.approx(1.0)
    assert found.seed == pytest.approx(math.sqrt((4 - 1) / 2))
    assert found.order == pytest.approx(math.sqrt((16 - 1) / 2))
    one = stats.components({(0, "given"): 5.0})
    assert (one.sd, one.seed, one.order) == (None, None, None)
    seeds = stats.components({(0, "given"): 4.0, (1, "given"): 6.0})
    assert seeds.seed == pytest.approx(2**0.5) and seeds.order is None
    hole = stats.components({(0, "a"): 1.0, (1, "a"): 2.0, (0, "b"): 3.0})
    assert hole.sd == pytest.approx(1.0) and hole.seed is None and hole.order is None
