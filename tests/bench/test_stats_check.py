"""The verdicts on simulated experiments with known truth: some rows of docs/statistics.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moextend.bench import stats
from tests.bench.simulated import LOSS, SEEDS, SIZES, TASKS, World, check, chosen_rows, delivered, power, size

EXPERIMENTS = 1000
"""The share of rejections has a standard error of 0.7 points."""
WORLDS = {
    **{
        f"{seeds} seeds, run sd {sd:g}": (World(seeds=seeds, run_sd=sd), 3)
        for seeds, sd in ((2, 0.0), (2, 5.0), (10, 5.0))
    },
    "one seed, shared images": (World(seeds=1), 3),
    "one seed, one task, 5 questions an image": (World(seeds=1, tasks=1, images=60, an_image=5), 2),
    "images of each task its own": (World(shared=False, run_sd=1.0), 3),
    # The two clusters that a report adds are most of the variance from items.
    "30 images, all answers drawn again": (World(images=30, run_sd=3.0, kept=0.0, alike=0.0), 2),
    "a true difference of 4 points": (World(run_sd=1.0, difference=4.0), 3),
}
"""Name -> world, and the least share that may be rejected."""
VERDICTS = [column for column in SIZES if column != "mean of all runs"]


@pytest.mark.parametrize("name", WORLDS)
def test_a_true_null_hypothesis_is_rejected_in_3_to_7_percent(name: str) -> None:
    """So 93 to 97% of intervals around the difference cover the true one."""
    world, least = WORLDS[name]
    assert least <= check(world, EXPERIMENTS)["size"] <= 7


@pytest.mark.parametrize(
    ("tasks", "seeds", "column"), [(3, 3, "run sd 5"), (3, 5, "BWT"), (3, 3, "both collapse")]
)
def test_verdicts_hold_also_with_collapses(tasks: int, seeds: int, column: str) -> None:
    assert 1 <= size(tasks, seeds, column, EXPERIMENTS) <= 7


@pytest.mark.long  # minutes: the table of docs/statistics.md
@pytest.mark.parametrize("column", VERDICTS)
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("tasks", TASKS)
def test_verdicts_hold_with_few_and_many_tasks(tasks: int, seeds: int, column: str) -> None:
    assert (1 if "collapse" in column else 3) <= size(tasks, seeds, column, 4 * EXPERIMENTS) <= 7


def test_fm_is_not_tested_as_noise_would_count_as_forgetting() -> None:
    assert chosen_rows(10, 3, EXPERIMENTS) > 50


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_gate_calls_a_loss_of_the_margin_kept_in_5_percent(seeds: int) -> None:
    """Also one of these runs alone, however much runs differ."""
    world = World(tasks=1, seeds=seeds, run_sd=3.0 * (seeds > 1), difference=-LOSS)
    found = check(world, EXPERIMENTS, margin=LOSS)
    assert 2 <= found["not_worse"] <= 7 and 2 <= found["these_runs"] <= 7


def test_items_alone_and_images_counted_apart_reject_too_often() -> None:
    assert check(World(run_sd=5.0), 300)["items_only"] > 20
    assert check(World(), EXPERIMENTS)["tasks_apart"] > 8


@pytest.mark.parametrize(("seeds", "sd"), [(1, 0.0), (2, 1.0), (5, 1.0)])
def test_power_is_as_promised(seeds: int, sd: float) -> None:
    assert 75 <= power(World(seeds=seeds, run_sd=sd), stats.POWER, EXPERIMENTS) <= 85


def test_seeds_that_a_pilot_of_three_plans_have_the_power_in_the_mean() -> None:
    """Plans that take its variances for the true ones fall short."""
    found, plugged, _ = delivered(World(seeds=3, run_sd=4.0, images=300), 6.0, 60)
    assert 75 <= found <= 85 and plugged < 72


def test_equivalence_is_rarely_claimed_of_a_difference_of_the_margin() -> None:
    world = World(seeds=5, images=300, difference=4.0)
    assert check(world, 500, margin=4.0)["equivalent"] <= 7
    assert check(replace(world, difference=0.0, images=600), 200, margin=4.0)["equivalent"] >= 60
