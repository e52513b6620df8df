"""Planned power: against the noncentral t distribution, and against simulated experiments of the planned size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import nct, t

from moextend.bench import stats
from moextend.bench.stats import planning
from moextend.bench.stats.planning import Design, Pilot
from tests.bench.simulated import World, check, pilots

SEEDS_ALONE = Pilot(
    seed=4.0, rest=0.0, order=None, own_items=0.0, item=0.0, item_by_order=0.0, unseen=0.0, item_error=0.0,
    clusters=10**6, seeds=10**6, orders=1,
)  # fmt: skip
"""Known without error."""


@pytest.mark.parametrize(("seeds", "distance"), [(3, 0.5), (5, 1.5), (30, 1.5), (10, 3.0)])
def test_with_seeds_as_only_source_the_power_is_that_of_the_t_test(seeds: int, distance: float) -> None:
    bar, shift = t.ppf(0.975, seeds - 1), distance / (2 / seeds**0.5)
    wanted = nct.sf(bar, seeds - 1, shift) + nct.cdf(-bar, seeds - 1, shift)
    assert planning.power(SEEDS_ALONE, Design(seeds), distance, 0.05) == pytest.approx(wanted, abs=0.005)


def test_needed_seeds_and_items_are_the_least_that_have_the_power() -> None:
    pilot = replace(SEEDS_ALONE, own_items=3.0, item=1.0, unseen=0.2, clusters=100)
    design = Design(5)
    seeds = planning.seeds_needed(pilot, design, 4.0, 0.05)
    assert seeds is not None
    assert planning.power(pilot, replace(design, seeds=seeds), 4.0, 0.05) >= 0.8
    assert planning.power(pilot, replace(design, seeds=seeds - 1), 4.0, 0.05) < 0.8
    times = planning.items_needed(pilot, design, 4.0, 0.05)
    assert times is not None and times > 1
    assert planning.power(pilot, replace(design, times=times), 4.0, 0.05) == pytest.approx(0.8, abs=0.01)
    assert planning.detectable(pilot, replace(design, times=times), 0.05) == pytest.approx(4.0, abs=0.05)
    assert planning.items_needed(pilot, design, 2.0, 0.05) is None, "seeds alone vary by more"
    assert planning.seeds_needed(pilot, design, 0.5, 0.05) is None, (
        "the items that all seeds share vary by more"
    )


PILOT, LARGE = World(seeds=4, run_sd=2.0, images=60), World(seeds=6, run_sd=2.0, images=150)


def _mean_pilot(world: World, experiments: int = 400) -> Pilot:
    """The components of a world: estimates averaged over many pilots, known without error."""
    found = pilots(world, experiments)
    names = ("seed", "rest", "own_items", "item", "item_by_order")
    means: dict[str, Any] = {name: float(np.mean([getattr(one, name) for one in found])) for name in names}
    return replace(found[0], **means, seeds=10**6, item_error=0.0)


def test_a_pilot_predicts_the_power_of_a_larger_experiment() -> None:
    pilot = _mean_pilot(PILOT)
    design = Design(LARGE.seeds, times=LARGE.images / PILOT.images)
    effect = planning.detectable(pilot, design, 0.05)
    assert 75 <= check(replace(LARGE, difference=effect), 1000)["against_zero"] <= 85


def test_the_interval_of_the_power_covers_the_power_of_the_true_variances() -> None:
    world = replace(PILOT, run_sd=3.0)
    design, effect = Design(8), 10.0
    true = planning.power(_mean_pilot(world), design, effect, 0.05)
    assert 0.3 < true < 0.9
    found = [
        np.quantile(planning.powers(pilot, design, effect, 0.05), [0.025, 0.975])
        for pilot in pilots(world, 200, seed=2)
    ]
    covered = np.mean([low <= true <= high for low, high in found])
    assert 0.92 <= covered <= 0.98


SDS = {"seed": 2.0, "order": 3.0, "rest": 1.5, "own": 2.5, "item": 1.5, "by_order": 1.2}
ORDERS, CLUSTERS = 3, 60


def _crossed(rng: Any, seeds: int, orders: int = ORDERS, clusters: int = CLUSTERS) -> tuple[Any, Any]:
    """Differences [S, O] and what items add [S, O, G]; the deviations of items are at CLUSTERS as in SDS."""
    s, o, g = seeds, orders, clusters
    scale = CLUSTERS**0.5 / g  # so that a sum over g items has the variance SDS^2 CLUSTERS / g
    items = scale * (
        SDS["own"] * rng.standard_normal((s, o, g))
        + SDS["by_order"] * rng.standard_normal((1, o, g))
        + SDS["item"] * rng.standard_normal((1, 1, g))
    )
    runs = SDS["seed"] * rng.standard_normal((s, 1)) + SDS["rest"] * rng.standard_normal((s, o))
    values = runs + SDS["order"] * FIXED[:o] + items.sum(-1)
    return values, items - items.mean(-1, keepdims=True)


FIXED = np.array([-1.0, 0.2, 0.8])
"""Effects of the orders; their mean is 0, so that the mean over orders has no difference."""


def _of_orders(values: Any, items: Any) -> tuple[Pilot, stats.Contrast]:
    single = [stats.contrast(list(values[:, o]), items[:, o], changed=99) for o in range(values.shape[1])]
    mean = stats.contrast(list(values.mean(1)), items.mean(1), changed=99)
    known = {(s, str(o)): float(v) for (s, o), v in np.ndenumerate(values)}
    return planning.pilot_of_orders(known, single, mean), mean


def test_components_over_orders_are_found_and_its_test_keeps_its_size() -> None:
    rng = np.random.default_rng(3)
    found = [_of_orders(*_crossed(rng, 6)) for _ in range(400)]
    pilots = [pilot for pilot, _ in found]
    wanted = {"seed": SDS["seed"], "rest": SDS["rest"], "own_items": SDS["own"], "item": SDS["item"],
              "item_by_order": SDS["by_order"]}  # fmt: skip
    for name, sd in wanted.items():
        assert np.mean([getattr(one, name) for one in pilots]) == pytest.approx(sd**2, rel=0.2), name
    order = [one.order for one in pilots if one.order is not None]
    assert np.mean(order) == pytest.approx(SDS["order"] ** 2 * FIXED.var(ddof=1), rel=0.25)
    assert 3 <= 100 * np.mean([mean.p < 0.05 for _, mean in found]) <= 7
    first, mean = found[0]
    sources = first.sources(Design(6, ORDERS))
    assert sources[0] == pytest.approx(mean.seed_variance) or first.seed == 0
    assert sources[1] == pytest.approx(mean.item_variance)


def test_a_pilot_of_one_order_expects_nothing_from_more_orders() -> None:
    pilot = replace(SEEDS_ALONE, own_items=3.0, item=1.0, clusters=100)
    assert pilot.sources(Design(5, 3)) == pilot.sources(Design(5, 1))


@pytest.mark.parametrize("tests", [1, 34])
def test_seeds_that_lie_close_together_by_chance_do_not_promise_too_much(tests: int) -> None:
    """Three seeds that differ by their items alone: what is planned has its power, not only in the mean over pilots."""
    true = replace(SEEDS_ALONE, seed=0.0, own_items=1.2, item=0.1)
    level, powers = 0.05 / tests, []
    effect = planning.detectable(true, Design(5), level)
    for spread in 1.2 * np.random.default_rng(0).chisquare(2, 50) / 2:
        found = stats.Contrast(1.0, spread / 3, 0.1, 3, 10**6, 99, own_items=1.2)
        seeds = planning.seeds_needed(planning.pilot_of(found), Design(3), effect, level)
        powers.append(1.0 if seeds is None else planning.power(true, Design(seeds), effect, level))
    assert min(powers) >= 0.79
