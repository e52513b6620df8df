"""The verdicts on simulated experiments with known truth: some rows of docs/statistics.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moextend.bench import stats
from moextend.bench.stats.check import OTHERS, POWERS, RUN_SDS, SEEDS, World, check, power

EXPERIMENTS = 1000
"""The share of rejections has a standard error of 0.7 points."""
CONSERVATIVE = {"3 seeds, 30 images, all answers drawn again"}
"""Here the two clusters that a report adds are most of the variance from items."""


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("sd", RUN_SDS)
def test_a_true_null_hypothesis_is_rejected_in_3_to_7_percent(seeds: int, sd: float) -> None:
    found = check(World(seeds=seeds, run_sd=sd), EXPERIMENTS)
    assert 3 <= found.rejected <= 7
    assert 93 <= 100 - found.rejected <= 97, "coverage of the interval around the same difference"


@pytest.mark.parametrize("name", OTHERS)
def test_so_it_is_with_one_seed_other_clusters_and_a_true_difference(name: str) -> None:
    least = 2 if name in CONSERVATIVE else 3
    assert least <= check(OTHERS[name], EXPERIMENTS).rejected <= 7


def test_items_alone_reject_far_too_often() -> None:
    found = check(World(seeds=3, run_sd=5.0), 300)
    assert found.items_only > 20


def test_tasks_that_share_images_must_be_one_set_of_clusters() -> None:
    assert check(World(seeds=3), EXPERIMENTS).tasks_apart > 8


@pytest.mark.parametrize("world", POWERS, ids=lambda world: f"{world.seeds}-seeds-sd-{world.run_sd:g}")
def test_power_is_as_promised(world: World) -> None:
    _, found = power(world, stats.POWER, EXPERIMENTS)
    assert 75 <= found <= 85


def test_equivalence_is_rarely_claimed_of_a_difference_of_the_margin() -> None:
    world = World(seeds=5, images=300, difference=4.0)
    assert check(world, 500, margin=4.0).equivalent <= 7
    assert check(replace(world, difference=0.0, images=600), 200, margin=4.0).equivalent >= 60
