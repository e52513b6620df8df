"""Statistics on cases that can be worked by hand, and on data whose truth is known."""

from __future__ import annotations

import math
import random

import pytest

from moextend.bench import stats
from moextend.bench.stats import Pairs


def alone(values: list[float]) -> Pairs:
    return Pairs(values, range(len(values)))


def test_the_error_of_lonely_items_is_the_usual_one() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    usual = math.sqrt(sum((v - 0.6) ** 2 for v in values) / 4 / 5)
    assert stats.clustered_error(values, range(5)) == pytest.approx(usual)


def test_copies_of_an_item_in_its_cluster_add_no_certainty() -> None:
    values, clusters = [0.0, 1.0, 1.0, 0.0], ["a", "b", "c", "d"]
    once = stats.clustered_error(values, clusters)
    assert stats.clustered_error(values * 5, clusters * 5) == pytest.approx(once)
    assert stats.clustered_error(values * 5, range(20)) < once / 2


def test_one_cluster_has_no_error() -> None:
    assert stats.clustered_error([0.0, 1.0], ["a", "a"]) is None
    assert stats.compare([Pairs([0.0, 1.0], ["a", "a"])]) is None
    assert stats.compare([]) is None


def test_few_clusters_are_enumerated() -> None:
    # all of four differences point one way: of 16 sign patterns two are as extreme
    found = stats.compare([alone([1.0, 1.0, 1.0, 1.0])])
    assert found is not None and found.p == pytest.approx(2 / 16)
    # 3 against 1: sums of at least 2 in size are +-4 and the eight patterns with one other sign
    found = stats.compare([alone([1.0, 1.0, 1.0, -1.0])])
    assert found is not None and found.p == pytest.approx(10 / 16)


def test_no_difference_is_no_difference() -> None:
    found = stats.compare([alone([0.0] * 50)])
    assert found is not None
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert found.verdict(found.p, 1.0) == "same"


def test_tasks_count_alike_whatever_their_size() -> None:
    found = stats.compare([alone([1.0] * 10), alone([0.0] * 990)])
    assert found is not None and found.value == pytest.approx(0.5) and found.items == 1000


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held, wrong = 0, 0
    for trial in range(150):
        rng = random.Random(trial)
        values, clusters = [], []
        for image in range(60):
            shared = rng.gauss(0, 1)  # what the questions of an image have in common
            for _ in range(3):
                values.append(0.3 + shared + rng.gauss(0, 0.5))
                clusters.append(image)
        found = stats.compare([Pairs(values, clusters)], resamples=400, seed=trial)
        blind = stats.compare([alone(values)], resamples=400, seed=trial)
        assert found is not None and blind is not None
        held += found.low <= 0.3 <= found.high
        wrong += not blind.low <= 0.3 <= blind.high
    assert 0.88 <= held / 150 <= 0.99
    assert wrong / 150 > 0.15, "without clusters the interval would be too narrow"


def test_a_random_method_is_rarely_called_better() -> None:
    called = 0
    for trial in range(200):
        rng = random.Random(trial)
        pairs = alone([rng.choice((-1.0, 0.0, 1.0)) for _ in range(40)])
        found = stats.compare([pairs], resamples=400, seed=trial)
        assert found is not None
        called += found.p < 0.05
    assert called / 200 < 0.09


def test_a_verdict_needs_power() -> None:
    few = stats.compare([alone([1.0, -1.0] * 20)])
    assert few is not None and few.verdict(few.p, 0.01) == "unresolved"
    # sd of the differences is 1: (1.96 + 0.84)^2 / 0.01^2 items resolve a difference of 0.01
    assert few.items_needed(0.01) == pytest.approx(78_500, rel=0.04)
    clear = stats.compare([alone([1.0] * 30 + [-1.0] * 5)])
    assert clear is not None and clear.verdict(clear.p, 0.01) == "higher"
    assert clear.verdict(0.2, 10.0) == "same"


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


def test_components_say_only_what_the_runs_can_tell() -> None:
    one = stats.components({(0, "given"): 5.0})
    assert (one.sd, one.seed, one.order) == (None, None, None)
    seeds = stats.components({(0, "given"): 4.0, (1, "given"): 6.0})
    assert seeds.seed == pytest.approx(2**0.5) and seeds.order is None
    hole = stats.components({(0, "a"): 1.0, (1, "a"): 2.0, (0, "b"): 3.0})
    assert hole.sd == pytest.approx(1.0) and hole.seed is None and hole.order is None
