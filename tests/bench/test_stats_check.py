"""The verdicts on simulated experiments with known truth: some rows of docs/statistics.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moextend.bench import stats
from tests.bench.simulated import ROWS, World, check, power

EXPERIMENTS = 1000
"""The share of rejections has a standard error of 0.7 points."""
WORLDS = {
    **{f"{seeds} seeds, run sd {sd:g}": (World(seeds=seeds, run_sd=sd), 3) for seeds, sd in ROWS},
    "one seed, shared images": (World(seeds=1), 3),
    "one seed, one task, 5 questions an image": (World(seeds=1, tasks=1, images=60, an_image=5), 3),
    "images of each task its own": (World(shared=False, run_sd=1.0), 3),
    # The two clusters that a report adds are most of the variance from items.
    "30 images, all answers drawn again": (World(images=30, run_sd=3.0, kept=0.0, alike=0.0), 2),
    "a true difference of 4 points": (World(run_sd=1.0, difference=4.0), 3),
}
"""Name -> world, and the least share that may be rejected."""


@pytest.mark.parametrize("name", WORLDS)
def test_a_true_null_hypothesis_is_rejected_in_3_to_7_percent(name: str) -> None:
    """So 93 to 97% of intervals around the difference cover the true one."""
    world, least = WORLDS[name]
    assert least <= check(world, EXPERIMENTS)["size"] <= 7


def test_items_alone_and_images_counted_apart_reject_too_often() -> None:
    assert check(World(run_sd=5.0), 300)["items_only"] > 20
    assert check(World(), EXPERIMENTS)["tasks_apart"] > 8


@pytest.mark.parametrize(("seeds", "sd"), [(1, 0.0), (2, 1.0), (5, 1.0)])
def test_power_is_as_promised(seeds: int, sd: float) -> None:
    assert 75 <= power(World(seeds=seeds, run_sd=sd), stats.POWER, EXPERIMENTS) <= 85


def test_equivalence_is_rarely_claimed_of_a_difference_of_the_margin() -> None:
    world = World(seeds=5, images=300, difference=4.0)
    assert check(world, 500, margin=4.0)["equivalent"] <= 7
    assert check(replace(world, difference=0.0, images=600), 200, margin=4.0)["equivalent"] >= 60
