"""Statistics over items and over runs: tests and intervals for comparisons of methods.

Every comparison has two sources of variance. Seeds: a method trained again gives other scores. Items: the sample of
images with their questions; all seeds answer the same items, so this error does not average out over seeds.
docs/statistics.md has the derivation and the simulations.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

POWER = 0.8
LEVEL = 0.05
Verdict = Literal["better", "worse", "equivalent", "undecided", "collapse", "items only"]
APART, TIMES = 10.0, 3.0
"""Points between two groups of runs, and that distance over the spread within them, above which some collapsed."""


@dataclass(frozen=True)
class Contrast:
    """The mean over seeds of a difference between two methods, in the unit of the scores."""

    value: float
    seed_variance: float
    """Variance of the mean from seeds: sample variance over seeds / S; 0 for one seed."""
    item_variance: float
    """Variance of the mean from the items that all seeds share."""
    seeds: int
    clusters: int
    """Number of clusters over all tasks: images, or single items."""
    changed: int
    """Number of clusters in which the two methods differ."""
    unseen: float = 0.0
    """Part of `item_variance` that stands for unseen clusters; see `unseen`."""
    own_items: float = 0.0
    """Variance of one seed's difference from items that affect this seed alone; part of the variance over seeds."""
    item_error: float = 0.0
    """Standard error of `item_variance`."""
    collapsed: bool = False
    """Whether runs of one of the two methods collapsed; see `collapsed`."""

    @property
    def of_these_runs(self) -> Contrast:
        """The difference with items as its only source of variance: about these weights, not about training again."""
        items = self.item_variance + self.own_items / self.seeds
        return replace(self, seed_variance=0.0, item_variance=items, seeds=1, own_items=0.0)

    @property
    def error(self) -> float:
        """Standard error, both sources."""
        return float((self.seed_variance + self.item_variance) ** 0.5)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Confidence interval at 1 - `level`."""
        half = float(self._half(level))
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided p of no difference; at least 2^(1 - changed), the minimum of a permutation of the methods."""
        return min(1.0, max(self._p(abs(self.value)), 2.0 ** (1 - self.changed)))

    def p_equivalent(self, margin: float) -> float:
        """p of a difference of `margin` or more, either way (two one-sided tests)."""
        room = margin - abs(self.value)
        return self._p(room) / 2 if room > 0 else 1 - self._p(-room) / 2

    def p_not_worse(self, margin: float) -> float:
        """One-sided p of a value of -`margin` or less (non-inferiority)."""
        room = margin + self.value
        return self._p(room) / 2 if room > 0 else 1 - self._p(-room) / 2

    def resolves(self, level: float = LEVEL) -> float:
        """Least true difference that is detected with 80% power at `level`, given these variances."""
        return detectable(
            level, self.seed_variance, self.item_variance, seeds=self.seeds, clusters=self.clusters
        )

    def _half(self, level: Any) -> Any:
        return half_width(
            level, self.seed_variance, self.item_variance, seeds=self.seeds, clusters=self.clusters
        )

    def _p(self, distance: float) -> float:
        """The level at which `distance` is the half-width."""
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0

        low, high = -40.0, 0.0  # powers of ten; the half-width falls as the level grows
        for _ in range(4):
            tried = np.linspace(low, high, 64)
            place = int((self._half(10**tried) > distance).sum())
            low, high = float(tried[max(place - 1, 0)]), float(tried[min(place, 63)])
        return float(10**high)


def verdict(p: float, p_equivalent: float, found: Contrast) -> Verdict:
    """Conclusion at corrected p-values. A difference within the margin is equivalent even if its sign is certain."""
    if found.seeds < 2:
        return "items only"
    if p_equivalent < LEVEL:
        return "equivalent"
    if p < LEVEL:
        return "better" if found.value > 0 else "worse"
    return "collapse" if found.collapsed else "undecided"


def collapsed(values: Sequence[float]) -> bool:
    """Whether the runs of a method, three or more, form two groups: over APART points and TIMES their spread apart."""
    ordered = sorted(values)
    widest = max((high - low for low, high in pairwise(ordered)), default=0.0)
    return len(values) > 2 and widest > max(APART, TIMES * (ordered[-1] - ordered[0] - widest))


def unseen_collapses(seeds: int) -> float:
    """Upper 95% limit of the share of runs that collapse, 0..1, if none of so many seeds did: 1 - 0.05^(1/S)."""
    return float(1 - LEVEL ** (1 / seeds))


def contrast(values: Sequence[float], deviations: Array, *, changed: int, floor: float = 0.0) -> Contrast:
    """The difference over seeds, from one value per seed and the contributions of clusters.

    Args:
        values: [S], the difference of each seed.
        deviations: [S, G] of at least two clusters, the parts that sum to an item-sampling error: for the mean of n
            items, the sum over a cluster's items of (x - mean) / n.
        changed: clusters in which the methods differ.
        floor: added to the item variance; see `unseen`.
    """
    seed, item = variances(np.asarray(values, float), deviations)
    return Contrast(
        fmean(values),
        float(seed),
        float(item) + floor,
        len(values),
        deviations.shape[-1],
        changed,
        unseen=floor,
        own_items=own_items(deviations),
        item_error=item_error(deviations),
    )


def unseen(scale: float, clusters: int) -> float:
    """Variance of two additional clusters, one for each method, on a task of `clusters`.

    Without it, equal answers to all items would have zero variance (Bonett and Price, 2012, add the same two pairs).
    """
    return 2 * (scale / (clusters + 2)) ** 2


def variances(values: Array, deviations: Array) -> tuple[Array, Array]:
    """Variance of the mean over seeds from seeds and from shared items; values [..., S], deviations [..., S, G].

    Items: the mean covariance of two seeds' item errors, sum_{s != t} sum_g d_sg d_tg / (S (S - 1)), times
    G / (G - 1); what items add in one seed alone is part of the variance over seeds. One seed has the items' own.
    """
    seeds, groups = deviations.shape[-2:]
    small = groups / max(groups - 1, 1)
    own = (deviations**2).sum((-1, -2))
    if seeds == 1:
        return np.zeros_like(own), small * own
    both = (deviations.sum(-2) ** 2).sum(-1)
    shared = small * (both - own) / (seeds * (seeds - 1))
    return values.var(-1, ddof=1) / seeds, np.maximum(shared, 0.0)


def own_items(deviations: Array) -> float:
    """Variance of one seed's difference from what items add in that seed alone; deviations [S, G], 0 for one seed.

    The mean variance of a seed's item errors less the mean covariance of two seeds, at least 0.
    """
    seeds, groups = deviations.shape
    if seeds == 1:
        return 0.0
    single = groups / max(groups - 1, 1) * (deviations**2).sum() / seeds
    shared = variances(np.zeros(seeds), deviations)[1]
    return max(float(single - shared), 0.0)


def item_error(deviations: Array) -> float:
    """Standard error of the items' variance of `variances`, with clusters as sampling units; deviations [S, G]."""
    seeds, groups = deviations.shape
    own = (deviations**2).sum(0)
    each = own if seeds == 1 else (deviations.sum(0) ** 2 - own) / (seeds * (seeds - 1))
    return float((groups * each.var(ddof=1)) ** 0.5)


def half_width(level: Any, seed_variance: Any, item_variance: Any, *, seeds: int, clusters: int) -> Any:
    """How far a mean difference must be from a value to exclude it at two-sided `level`; broadcasts.

    With one seed t_{G-1} times the items' error. With more the t of each source times its error, combined as
    (a^q + b^q)^(1/q) with q = 2 + 12 / (S - 1)^2: nearly the larger of the two for few seeds, their root of squares
    for many. With two seeds the seeds' part is less by 1.5 errors of the items. These constants are calibrated: the
    size is 3.6 to 6.1% with two seeds and 4.3 to 5.3% with more, whatever the ratio of the two variances.
    Satterthwaite's degrees of freedom would reject up to 13% with two seeds and 8% with three.
    """
    from scipy.special import stdtrit

    items = -stdtrit(clusters - 1, np.asarray(level) / 2) * np.sqrt(item_variance)
    if seeds == 1:
        return items
    over = -stdtrit(seeds - 1, np.asarray(level) / 2) * np.sqrt(seed_variance)
    if seeds == 2:
        over = np.maximum(over - 1.5 * np.sqrt(item_variance), 0.0)
    most, least = np.maximum(items, over), np.minimum(items, over)
    q = 2 + 12 / (seeds - 1) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return most * (1 + np.where(most > 0, least / most, 0.0) ** q) ** (1 / q)


def detectable(
    level: float, seed_variance: Any, item_variance: Any, *, seeds: int, clusters: int, power: float = POWER
) -> float:
    """Least true difference that a test at `level` detects with `power`, in the mean over these variances."""
    bars, error = _bars(level, seed_variance, item_variance, seeds, clusters)
    low, high = 0.0, float(bars.max()) + 10 * float(error.max())
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _found(middle, bars, error).mean() < power else (low, middle)
    return high


def power_of(
    difference: float, level: float, seed_variance: Any, item_variance: Any, *, seeds: int, clusters: int
) -> Array:
    """Probability, 0..1, that a two-sided test at `level` finds a true `difference`; variances broadcast."""
    return _found(difference, *_bars(level, seed_variance, item_variance, seeds, clusters))


def _bars(
    level: float, seed_variance: Any, item_variance: Any, seeds: int, clusters: int
) -> tuple[Array, Array]:
    """Half-widths [..., D] in equally likely repetitions, which estimate the variance over seeds again, and errors."""
    from scipy.special import chdtri

    drawn = np.array([1.0])  # the seeds' variance that a repetition would see, as a multiple of the true one
    if seeds > 1:
        drawn = chdtri(seeds - 1, (np.arange(200) + 0.5) / 200) / (seeds - 1)
    over_seeds, items = np.asarray(seed_variance)[..., None], np.asarray(item_variance)[..., None]
    bars = half_width(level, over_seeds * drawn, items, seeds=seeds, clusters=clusters)
    return np.asarray(bars), np.sqrt(over_seeds + items)


def _found(difference: float, bars: Array, error: Array) -> Array:
    """Share of the repetitions that find a true difference [...]; without any error all do."""
    from scipy.special import ndtr

    spread = np.where(error > 0, error, 1e-12)
    shares: Array = ndtr((difference - bars) / spread).mean(-1) + ndtr((-difference - bars) / spread).mean(-1)
    return shares


def clustered_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Standard error of the mean of `values` with clusters as sampling units; None for fewer than two clusters.

    sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2) / n; with one item a cluster it is s / sqrt(n).
    """
    sums, counts = _by_cluster(values, clusters)
    groups, n = len(sums), int(counts.sum())
    if groups < 2:
        return None
    residual = sums - counts * (sums.sum() / n)
    return float((groups / (groups - 1) * (residual**2).sum()) ** 0.5 / n)


def weighted_mean(
    values: Sequence[float], weights: Sequence[float] | None, clusters: Sequence[Hashable]
) -> tuple[float, float | None]:
    """Mean of `values`, and its standard error with clusters as sampling units (see `clustered_error`).

    A weighted mean is a ratio of two sums, R = sum w x / sum w. Its error is that of the mean of w (x - R) / mean(w),
    the linear approximation of R. None and weights that are all 0 stand for equal weights.
    """
    if weights is None or not sum(weights):
        return fmean(values), clustered_error(values, clusters)
    mean = sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)
    unit = sum(weights) / len(weights)
    around = [w * (x - mean) / unit for w, x in zip(weights, values, strict=True)]
    return mean, clustered_error(around, clusters)


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[Array, Array]:
    """Sum and number of items of each cluster."""
    place = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    at = np.array([place[cluster] for cluster in clusters], dtype=int)
    return np.bincount(at, weights=np.asarray(values, float)), np.bincount(at).astype(float)


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
    """Components of a metric's spread over runs: standard deviations, None if the runs do not determine them."""

    mean: float
    sd: float | None
    """Over all runs."""
    seed: float | None
    order: float | None
    rest: float | None
    """Residual of seed and order."""


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
