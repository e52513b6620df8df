"""Where a curve of scores over budgets reaches a score, and what that costs: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from moextend.bench.stats import LEVEL


@dataclass(frozen=True)
class Place:
    """A place on a curve of budgets, from the smallest on."""

    budget: int
    """Index of the budget below it."""
    part: float
    """How far it lies on the way to the next budget, 0..1."""

    @property
    def is_first(self) -> bool:
        """Whether it is the smallest budget, so that less might suffice."""
        return self.budget == 0 and self.part == 0


def reached(scores: Sequence[float], target: float) -> Place | None:
    """First place at which a curve of straight lines between budgets has the score `target`; None: nowhere.

    The smallest budget is the place of every target up to its score.
    """
    if not scores:
        return None
    if scores[0] >= target:
        return Place(0, 0.0)
    for index, (below, above) in enumerate(pairwise(scores)):
        if above >= target:
            return Place(index, (target - below) / (above - below))
    return None


def at(values: Sequence[float], place: Place) -> float:
    """Value at a place, by a straight line between budgets."""
    if place.part == 0:
        return values[place.budget]
    low, high = values[place.budget : place.budget + 2]
    return low + place.part * (high - low)


def common_score(curves: Sequence[Sequence[float]]) -> float:
    """Largest score that every curve reaches; ValueError without curves."""
    return min(max(curve) for curve in curves)


@dataclass(frozen=True)
class Ratio:
    """A positive quantity over seeds: geometric mean, and the interval of t on the logarithms."""

    mean: float
    low: float | None = None
    """None with one seed."""
    high: float | None = None


def over_seeds(values: Sequence[float], level: float = LEVEL) -> Ratio:
    """Geometric mean of positive values with its confidence interval at 1 - `level`; ValueError without values."""
    logs = [math.log(value) for value in values]
    mean = fmean(logs)
    if len(logs) < 2:
        return Ratio(math.exp(mean))
    from scipy.special import stdtrit

    count = len(logs)
    variance = sum((value - mean) ** 2 for value in logs) / (count - 1)
    half = -float(stdtrit(count - 1, level / 2)) * (variance / count) ** 0.5
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
