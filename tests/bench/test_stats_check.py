"""The verdicts on simulated experiments with known truth: some rows of docs/statistics.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moextend.bench import stats
from moextend.bench.stats.check import OTHERS, POWERS, RUN_SDS, SEEDS, World, check, power

EXPERIMENTS = 1000
"""The share of rejections has a standard error of 0.7 points."""
SMALL = World(images=60)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("sd", RUN_SDS)
def test_a_true_null_hypothesis_is_rejected_in_2_to_7_percent(seeds: int, sd: float) -> None:
    """The two clusters that a report adds to 60 images make the test conservative: 3 to 4.5% in the mean."""
    assert 2 <= check(replace(SMALL, seeds=seeds, run_sd=sd), EXPERIMENTS).rejected <= 7


@pytest.mark.parametrize("seeds", [2, 3])
def test_with_150_images_it_is_3_to_7_percent(seeds: int) -> None:
    assert 3 <= check(World(seeds=seeds, run_sd=3.0), EXPERIMENTS).rejected <= 7


@pytest.mark.parametrize("name", OTHERS)
def test_so_it_is_with_one_seed_other_clusters_and_a_true_difference(name: str) -> None:
    assert 2 <= check(OTHERS[name], EXPERIMENTS).rejected <= 7


def test_items_alone_reject_far_too_often() -> None:
    found = check(World(seeds=3, run_sd=5.0), 300)
    assert found.items_only > 20


def test_tasks_that_share_images_must_be_one_set_of_clusters() -> None:
    assert check(World(seeds=3), EXPERIMENTS).tasks_apart > 8


@pytest.mark.parametrize("world", POWERS, ids=lambda world: f"{world.seeds}-seeds-sd-{world.run_sd:g}")
def test_power_is_as_promised(world: World) -> None:
    _, found = power(replace(world, images=60), stats.POWER, EXPERIMENTS)
    assert 75 <= found <= 87


def test_equivalence_is_rarely_claimed_of_a_difference_of_the_margin() -> None:
    world = World(seeds=5, images=300, difference=4.0)
    assert check(world, 500, margin=4.0).equivalent <= 7
    assert check(replace(world, difference=0.0, images=600), 200, margin=4.0).equivalent >= 60
