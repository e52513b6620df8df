"""Statistics on cases computed by hand, and on data with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moextend.bench import stats


def test_the_error_of_lonely_items_is_the_usual_one() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    usual = math.sqrt(sum((v - 0.6) ** 2 for v in values) / 4 / 5)
    assert stats.clustered_error(values, range(5)) == pytest.approx(usual)


def test_copies_of_an_item_in_its_cluster_add_no_certainty() -> None:
    values, clusters = [0.0, 1.0, 1.0, 0.0], ["a", "b", "c", "d"]
    once = stats.clustered_error(values, clusters)
    assert stats.clustered_error(values * 5, clusters * 5) == pytest.approx(once)
    apart = stats.clustered_error(values * 5, range(20))
    assert once and apart and apart < once / 2


def test_one_cluster_has_no_error() -> None:
    assert stats.clustered_error([0.0, 1.0], ["a", "a"]) is None


def made(values: list[float], deviations: list[list[float]], changed: int = 50) -> stats.Contrast:
    return stats.contrast(values, np.array(deviations), changed=changed)


def test_variances_by_hand() -> None:
    # Two seeds of 1 and 3: variance 2, of the mean 1. Item errors (1, -1) and (3, -3): covariance 6, times G/(G-1) = 2.
    found = made([1.0, 3.0], [[1.0, -1.0], [3.0, -3.0]])
    assert (found.value, found.seed_variance, found.item_variance) == (2.0, 1.0, 12.0)
    # One seed: the items' own, 1 + 1, times 2.
    alone = made([1.0], [[1.0, -1.0]])
    assert (alone.seed_variance, alone.item_variance) == (0.0, 4.0)


def test_noise_of_one_seed_is_not_noise_of_items() -> None:
    """Items whose errors have nothing to do with each other over seeds add to the seeds' variance alone."""
    assert made([0.0, 0.0], [[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]).item_variance == 0.0


def test_without_item_noise_it_is_the_t_test_over_seeds() -> None:
    from scipy.stats import ttest_1samp

    values = [1.0, 2.0, 4.0, 3.5]
    found = made(values, [[0.0] * 9] * 4)
    known = ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(known.pvalue, rel=1e-4)
    assert found.interval() == pytest.approx(tuple(known.confidence_interval()))


def test_without_run_noise_it_is_the_t_test_over_items() -> None:
    from scipy.stats import ttest_1samp

    items = np.random.default_rng(0).normal(0.4, 1.0, 40)
    parts = (items - items.mean()) / 40
    known = ttest_1samp(items, 0.0)
    for seeds in (1, 2, 3, 10):
        found = stats.contrast([items.mean()] * seeds, np.array([parts] * seeds), changed=40)
        assert found.p == pytest.approx(known.pvalue, rel=1e-4)
        assert found.interval() == pytest.approx(tuple(known.confidence_interval()))


def test_p_and_interval_agree() -> None:
    for seeds, item in ((1, 0.5), (2, 0.5), (3, 2.0), (10, 0.1)):
        found = stats.Contrast(3.0, 0.0 if seeds == 1 else 1.0, item, seeds, 80, 80)
        low, _ = found.interval(found.p)
        assert low == pytest.approx(0.0, abs=1e-3)


def test_equivalence_is_two_one_sided_tests() -> None:
    found = stats.Contrast(0.3, 0.04, 0.01, 5, 500, 200)
    low, high = found.interval(0.10)
    assert max(abs(low), abs(high)) < 1.0
    assert found.p_equivalent(1.0) < 0.05
    assert found.p_equivalent(max(abs(low), abs(high))) == pytest.approx(0.05, rel=1e-3)
    assert found.p_equivalent(0.2) > 0.5, "the difference itself is larger than the margin"


def test_a_difference_of_100_points_is_one_whatever_the_number_of_rows() -> None:
    """A p-value with a floor would be corrected away in a large table."""
    found = stats.contrast([100.0] * 3, np.zeros((3, 200)), changed=200, floor=stats.unseen(100, 200))
    corrected = stats.holm([found.p, *[1.0] * 2000])[0]
    assert stats.verdict(corrected, 1.0, gain=100.0, seeds=3) == "better"


def test_few_items_prove_nothing() -> None:
    """Three items all right for one method and all wrong for the other: exchanging the methods gives p = 1/4."""
    found = stats.contrast([100.0] * 3, np.zeros((3, 3)), changed=3, floor=stats.unseen(100, 3))
    assert found.p >= 0.25


def test_items_that_all_agree_are_equivalent_only_if_they_are_many() -> None:
    few, many = (
        stats.contrast([0.0] * 3, np.zeros((3, n)), changed=0, floor=stats.unseen(100, n)) for n in (40, 2000)
    )
    assert few.p == many.p == 1.0
    assert few.p_equivalent(1.0) > 0.05 > many.p_equivalent(1.0)


def test_verdicts() -> None:
    assert stats.verdict(0.01, 0.9, gain=3.0, seeds=3) == "better"
    assert stats.verdict(0.01, 0.9, gain=-3.0, seeds=3) == "worse"
    assert stats.verdict(0.01, 0.01, gain=-0.1, seeds=3) == "equivalent", "certain, and within the margin"
    assert stats.verdict(0.20, 0.20, gain=3.0, seeds=3) == "undecided"
    assert stats.verdict(0.001, 0.9, gain=30.0, seeds=1) == "items only"


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert stats.holm([]) == []


def test_components_of_a_pure_seed_effect() -> None:
    values = {(seed, order): 10.0 * seed for seed in range(3) for order in ("given", "reverse")}
    found = stats.components(values)
    assert found.mean == 10.0
    assert found.seed == pytest.approx(10.0) and found.order == 0.0 and found.rest == 0.0


def test_components_by_hand() -> None:
    # effects: seed -1/+1, order -2/+2, interaction +-0.5: MS_rest 1, MS_seed 4, MS_order 16
    values = {(0, "a"): -3 + 0.5, (0, "b"): 1 - 0.5, (1, "a"): -1 - 0.5, (1, "b"): 3 + 0.5}
    found = stats.components(values)
    assert found.rest == pytest.approx(1.0)
    assert found.seed == pytest.approx(math.sqrt((4 - 1) / 2))
    assert found.order == pytest.approx(math.sqrt((16 - 1) / 2))


def test_components_contain_only_what_the_runs_determine() -> None:
    one = stats.components({(0, "given"): 5.0})
    assert (one.sd, one.seed, one.order) == (None, None, None)
    seeds = stats.components({(0, "given"): 4.0, (1, "given"): 6.0})
    assert seeds.seed == pytest.approx(2**0.5) and seeds.order is None
    hole = stats.components({(0, "a"): 1.0, (1, "a"): 2.0, (0, "b"): 3.0})
    assert hole.sd == pytest.approx(1.0) and hole.seed is None and hole.order is None
