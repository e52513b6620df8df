"""Power of the report's tests with other numbers of seeds, orders and items, from the variances of a pilot."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from moextend.bench import stats
from moextend.bench.stats import Contrast

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

MOST_SEEDS = 100
"""Seeds that are tried."""
POSSIBLE = 40
"""Variances that are tried for those that a pilot leaves possible."""
MOST_TIMES = 20.0
"""Binary logarithm of the most times a pilot's items that are tried."""


@dataclass(frozen=True)
class Design:
    """The size of an experiment."""

    seeds: int
    orders: int = 1
    times: float = 1.0
    """Items, as a multiple of those of the pilot."""


@dataclass(frozen=True)
class Pilot:
    """Variance components of the difference of one seed in one order, in squared points.

    value[seed, order] = difference + seed + order + seed x order + items + items x order + items x (seed, order).
    The order itself has no part in a test, which is about the orders that were run.
    """

    seed: float
    """Between seeds, alike in all orders; with one order it includes seed x order."""
    rest: float
    """Seed x order, without the part of the items; 0 with one order."""
    order: float | None
    """Between orders; None with one order or one seed."""
    own_items: float
    """Items that affect one run alone. It falls with the number of items, as those below do."""
    item: float
    """Items, alike in all runs: what more seeds do not average out."""
    item_by_order: float
    """Items, alike in all seeds of one order; 0 with one order."""
    unseen: float
    """See stats.unseen."""
    item_error: float
    """Standard error of the items' variance."""
    clusters: int
    seeds: int
    orders: int

    @property
    def run(self) -> float:
        """Variance of the differences of one order over seeds."""
        return self.seed + self.rest + self.own_items

    def sources(self, design: Design) -> tuple[Any, Any, int]:
        """What the test of a design sees on average: variances of the mean from seeds and from items, and clusters.

        A pilot of one order does not tell which part of the variance differs between orders: none is averaged out.
        """
        orders = design.orders if self.orders > 1 else 1
        over_seeds = (self.seed + (self.rest + self.own_items / design.times) / orders) / design.seeds
        items = (self.item + self.item_by_order / orders) / design.times
        fewer = (self.clusters + 2) / (self.clusters * design.times + 2)
        clusters = max(2, int(self.clusters * design.times))
        return over_seeds * (design.seeds > 1), items + self.unseen * fewer**2, clusters

    def possible(self) -> Pilot:
        """Arrays of the variances that are compatible with the estimates, all equally likely, for the estimates.

        The variance over seeds is (S - 1) V / chi2 with S - 1 degrees of freedom, that of the items normal around its
        estimate and at least 0: the fiducial distribution of generalised intervals (Tsui and Weerahandi, 1989). Their
        quantiles are paired by a lattice. With three seeds the variance over seeds may be 0.3 to 40 times its estimate,
        with ten 0.5 to 3.3 times.
        """
        from scipy.special import chdtri, ndtri

        shares, golden = (np.arange(POSSIBLE) + 0.5) / POSSIBLE, (5**0.5 - 1) / 2
        known, known_items = self.seed + self.rest, self.item + self.item_by_order
        free = self.seeds - 1
        spread = free * self.run / chdtri(free, shares) if free else np.full(POSSIBLE, self.run)
        over_seeds = np.maximum(
            spread - self.own_items, 0.0
        )  # the part of the items is known better, and stays
        seed = over_seeds * (self.seed / known if known else 1.0)
        drawn = ndtri((np.arange(POSSIBLE) * golden + 0.5) % 1)
        items = np.maximum(known_items + drawn * self.item_error, 0.0)
        by_order = items * (self.item_by_order / known_items if known_items else 0.0)
        arrays: Any = {
            "seed": seed,
            "rest": over_seeds - seed,
            "item": items - by_order,
            "item_by_order": by_order,
        }
        return replace(self, **arrays)


def pilot_of(found: Contrast) -> Pilot:
    """The components of a comparison in one order.

    The variance over seeds is at least what the items of one run add to it: that part is known from all items, the
    sum from a few seeds, which may lie close together by chance.
    """
    own = found.own_items
    return Pilot(
        seed=max(found.seed_variance * found.seeds - own, 0.0),
        rest=0.0,
        order=None,
        own_items=own,
        item=max(found.item_variance - found.unseen, 0.0),
        item_by_order=0.0,
        unseen=found.unseen,
        item_error=found.item_error,
        clusters=found.clusters,
        seeds=found.seeds,
        orders=1,
    )


def pilot_of_orders(
    values: Mapping[tuple[int, str], float], single: Sequence[Contrast], mean: Contrast
) -> Pilot:
    """The components of a comparison in several orders.

    Args:
        values: (seed, order) -> difference; every seed in every order, at least two of both.
        single: the comparison in each order alone.
        mean: that of the mean over orders.
    """
    orders, seeds = len(single), mean.seeds
    parts = stats.components(values)
    assert parts.order is not None and parts.rest is not None
    rest, over_seeds = parts.rest**2, orders * seeds * mean.seed_variance
    if over_seeds < rest:  # no sign of a seed effect: both mean squares estimate the same variance
        rest = over_seeds = (over_seeds + (orders - 1) * rest) / orders
    own = fmean(each.own_items for each in single)
    rest, over_seeds = max(rest, own), max(over_seeds, own)  # at least what the items add, as in `pilot_of`
    within = fmean(max(each.item_variance - each.unseen, 0.0) for each in single)
    over = max(mean.item_variance - mean.unseen, 0.0)
    item = min(max((orders * over - within) / (orders - 1), 0.0), within)
    return Pilot(
        seed=max(over_seeds - rest, 0.0) / orders,
        rest=rest - own,
        order=max(parts.order**2 - (within - item), 0.0),
        own_items=own,
        item=item,
        item_by_order=within - item,
        unseen=mean.unseen,
        item_error=mean.item_error,
        clusters=mean.clusters,
        seeds=seeds,
        orders=orders,
    )


def powers(pilot: Pilot, design: Design, distance: float, level: float) -> Array:
    """Probabilities, 0..1, that the test of a design at two-sided `level` finds a difference of `distance` points.

    One for each of the variances that the pilot leaves possible; their mean is the expected power. A one-sided test
    of a margin: `distance` from the true difference to the margin, at twice its level.
    """
    over_seeds, items, clusters = pilot.possible().sources(design)
    return stats.power_of(distance, level, over_seeds, items, seeds=design.seeds, clusters=clusters)


def power(pilot: Pilot, design: Design, distance: float, level: float) -> float:
    """Expected power: the probability with which experiments that are planned so find the difference; see `powers`."""
    return float(powers(pilot, design, distance, level).mean())


def detectable(pilot: Pilot, design: Design, level: float, wanted: float = stats.POWER) -> float:
    """Least difference in points that the test of a design finds with the wanted expected power."""
    over_seeds, items, clusters = pilot.possible().sources(design)
    return stats.detectable(level, over_seeds, items, seeds=design.seeds, clusters=clusters, power=wanted)


def seeds_needed(
    pilot: Pilot, design: Design, distance: float, level: float, wanted: float = stats.POWER
) -> int | None:
    """Least number of seeds, from 2, with the wanted expected power; None: 100 are not enough."""
    found = 2 + bisect_left(
        range(2, MOST_SEEDS + 1),
        wanted,
        key=lambda seeds: power(pilot, replace(design, seeds=seeds), distance, level),
    )
    return found if found <= MOST_SEEDS else None


def items_needed(
    pilot: Pilot, design: Design, distance: float, level: float, wanted: float = stats.POWER
) -> float | None:
    """Items, as a multiple of the pilot's, with the wanted expected power; None: a million times as many lack it.

    The part of the items' variance that was seen falls as 1/n, the part that stands for unseen pairs as 1/n^2.
    """

    def enough(log: float) -> bool:
        return power(pilot, replace(design, times=2**log), distance, level) >= wanted

    low, high = math.log2(2 / pilot.clusters), MOST_TIMES
    if enough(low):
        return float(2**low)
    if not enough(high):
        return None
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(2**high)
