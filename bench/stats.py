"""Statistics over items and over runs: what a table may claim, and what it cannot resolve.

Two kinds of variance are kept apart. Items are drawn: two methods that answered the same items are compared item by
item, and items of one image are one cluster. Runs are drawn too: seeds and orders have components of their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

POWER = 0.8
LEVEL = 0.05
Verdict = Literal["higher", "lower", "same", "unresolved"]


@dataclass(frozen=True)
class Pairs:
    """The same items of one task, answered by two methods."""

    difference: Sequence[float]
    """Score of the first less that of the second, item by item."""
    cluster: Sequence[Hashable]
    """What each item shares with others, such as its image; an item without company is its own cluster."""


@dataclass(frozen=True)
class Comparison:
    """A mean difference over tasks, in the unit of the scores."""

    value: float
    low: float
    high: float
    """95% interval: percentile bootstrap over clusters."""
    p: float
    """Two-sided, by flipping the sign of whole clusters; exact where there are few."""
    error: float
    """Standard error, clustered."""
    items: int

    @property
    def resolves(self) -> float:
        """The smallest difference found with 80% power at the 5% level: (z.975 + z.8) standard errors."""
        return (_z(1 - LEVEL / 2) + _z(POWER)) * self.error

    def verdict(self, p: float, matters: float) -> Verdict:
        """What may be said at a (corrected) `p`; `matters` is the smallest difference that would count."""
        if p < LEVEL:
            return "higher" if self.value > 0 else "lower"
        return "same" if self.resolves <= matters else "unresolved"

    def items_needed(self, matters: float) -> int:
        """Items, over all tasks, with which a difference of `matters` would be found with 80% power."""
        return max(self.items, round(self.items * (self.resolves / matters) ** 2))


def _z(share: float) -> float:
    return NormalDist().inv_cdf(share)


def clustered_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Standard error of the mean of `values` with whole clusters drawn; None for fewer than two clusters.

    sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2) / n; with one item a cluster it is s / sqrt(n).
    """
    sums, counts = _by_cluster(values, clusters)
    groups, n = len(sums), int(counts.sum())
    if groups < 2:
        return None
    residual = sums - counts * (sums.sum() / n)
    return float((groups / (groups - 1) * (residual**2).sum()) ** 0.5 / n)


def compare(tasks: Sequence[Pairs], *, resamples: int = 4000, seed: int = 0) -> Comparison | None:
    """The mean over `tasks` of the mean paired difference; None where a task has fewer than two clusters."""
    import numpy as np

    errors = [clustered_error(task.difference, task.cluster) for task in tasks]
    known = [error for error in errors if error is not None]
    if not tasks or len(known) < len(tasks):
        return None
    parts = [_by_cluster(task.difference, task.cluster) for task in tasks]
    value = fmean(float(sums.sum() / counts.sum()) for sums, counts in parts)
    rng = np.random.default_rng(seed)
    drawn = np.mean([_bootstrap(*part, resamples, rng) for part in parts], axis=0)
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return Comparison(
        value=value,
        low=float(low),
        high=float(high),
        p=_sign_flips(parts, value, resamples, rng),
        error=float(sum(error**2 for error in known) ** 0.5 / len(known)),
        items=sum(len(task.difference) for task in tasks),
    )


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[Array, Array]:
    """Sum and number of items of each cluster."""
    import numpy as np

    place = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    at = np.array([place[cluster] for cluster in clusters], dtype=int)
    return np.bincount(at, weights=np.asarray(values, float)), np.bincount(at).astype(float)


def _bootstrap(sums: Array, counts: Array, resamples: int, rng: Any) -> Array:
    """Means of `resamples` draws of whole clusters with replacement."""
    import numpy as np

    groups, found = len(sums), []
    each = max(1, 4_000_000 // groups)  # draws at a time, to bound memory
    for start in range(0, resamples, each):
        times = rng.multinomial(groups, np.full(groups, 1 / groups), size=min(each, resamples - start))
        found.append((times @ sums) / (times @ counts))
    return np.concatenate(found)


def _sign_flips(parts: Sequence[tuple[Array, Array]], value: float, resamples: int, rng: Any) -> float:
    """p of |value| when the two methods could change places in every cluster; clusters of difference 0 do not count."""
    import numpy as np

    weights = np.concatenate([sums / counts.sum() / len(parts) for sums, counts in parts])
    weights = weights[weights != 0]
    n, bar = len(weights), abs(value) - 1e-12
    if 2**n <= resamples:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((abs(signs @ weights) >= bar).mean())
    extreme, each = 0, max(1, 4_000_000 // n)
    for start in range(0, resamples, each):
        signs = 1 - 2 * rng.integers(0, 2, size=(min(each, resamples - start), n))
        extreme += int((abs(signs @ weights) >= bar).sum())
    return (1 + extreme) / (1 + resamples)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given (Holm, 1979)."""
    ranked = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


@dataclass(frozen=True)
class Components:
    """Where a metric's spread over runs comes from: standard deviations, None where runs cannot tell."""

    mean: float
    sd: float | None
    """Over all runs."""
    seed: float | None
    order: float | None
    rest: float | None
    """What neither seed nor order explains."""


def components(values: Mapping[tuple[int, str], float]) -> Components:
    """Seed, order and residual components of {(seed, order): value}, by the two-way random-effects table.

    With S seeds crossed with O orders: var_seed = (MS_seed - MS_rest) / O, likewise order; negative estimates are 0.
    Runs of one order give seed alone, of one seed order alone; an incomplete crossing gives the total only.
    """
    runs = list(values.values())
    mean = fmean(runs)
    sd = (sum((v - mean) ** 2 for v in runs) / (len(runs) - 1)) ** 0.5 if len(runs) > 1 else None
    seeds = sorted({seed for seed, _ in values})
    orders = sorted({order for _, order in values})
    if len(runs) < 2 or len(runs) != len(seeds) * len(orders):
        return Components(mean, sd, None, None, None)
    if len(orders) == 1:
        return Components(mean, sd, sd, None, None)
    if len(seeds) == 1:
        return Components(mean, sd, None, sd, None)
    by_seed = {s: fmean(values[s, o] for o in orders) for s in seeds}
    by_order = {o: fmean(values[s, o] for s in seeds) for o in orders}
    ms_seed = len(orders) * sum((m - mean) ** 2 for m in by_seed.values()) / (len(seeds) - 1)
    ms_order = len(seeds) * sum((m - mean) ** 2 for m in by_order.values()) / (len(orders) - 1)
    left = sum((values[s, o] - by_seed[s] - by_order[o] + mean) ** 2 for s in seeds for o in orders)
    ms_rest = left / ((len(seeds) - 1) * (len(orders) - 1))
    return Components(
        mean,
        sd,
        max(0.0, (ms_seed - ms_rest) / len(orders)) ** 0.5,
        max(0.0, (ms_order - ms_rest) / len(seeds)) ** 0.5,
        ms_rest**0.5,
    )
