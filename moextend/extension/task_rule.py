"""The decision rule of task inference: regularised discriminant analysis (Friedman 1989), with thresholds for the parts
of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from moextend.extension.task_inference import TaskStatistics

REJECTED = 0.01
"""Share of an extension's own inputs that its threshold may reject."""
OWN = 0.1
"""Share of an extension's own covariance in the one that its inputs are compared by; the rest is shared."""
LEAST = 1e-6
"""Added to the variance of each scaled feature: some do not vary at all."""
FEWEST = 39
"""Minimum number of held-out inputs for thresholds: n of them guarantee no rejection rate below 1 / (n + 1)."""
SLACK = 1e-4
"""Squared distance per feature of a part by which an input may exceed a threshold. If many inputs are alike (one
question for all), many distances equal the threshold, and rounding errors would decide."""

KEPT = 4
"""Statistics of each feature of a modality: its mean, median, maximum and minimum over the tokens."""

Kind = tuple[str, ...]
"""Modalities of an input, in alphabetical order; none: text alone."""


@dataclass(frozen=True)
class Threshold:
    """Largest distance of an input from the mean of an extension."""

    distances: tuple[float, ...]
    """Squared Mahalanobis distances of the text and of each modality; infinite if too few inputs were kept."""
    rejected: float
    """Upper bound of the expected share of the extension's own inputs that are farther (false rejections), 0..1."""


def threshold(distances: Sequence[Tensor]) -> Threshold:
    """Threshold from held-out distances, [n] for each part of the features (split conformal prediction).

    With p parts each part gets the ceil((n + 1)(1 - `REJECTED` / p))-th smallest of its distances, or the largest if
    that rank exceeds n. A new input of the same distribution has any rank with equal probability, so it is farther in
    a part with a probability of at most 1 - rank / (n + 1).
    """
    n, parts = len(distances[0]), len(distances)
    if n < FEWEST:
        return Threshold((inf,) * parts, 0.0)
    rank = min(n, ceil((n + 1) * (1 - REJECTED / parts)))
    kept = tuple(float(each.sort().values[rank - 1]) for each in distances)
    return Threshold(kept, parts * (1 - rank / (n + 1)))


def shrunk(covariance: Tensor, count: int) -> Tensor:
    """Covariance [D, D] of `count` inputs, moved to a multiple of the identity by OAS (Chen et al. 2010, eq. 23).

    As in scikit-learn, without the terms in 2 / D.
    """
    width, trace, squares = len(covariance), covariance.trace(), covariance.square().sum()
    spread = (squares - trace.square() / width).clamp(min=LEAST)
    share = ((squares + trace.square()) / ((count + 1) * spread)).clamp(max=1.0)
    return (1 - share) * covariance + share * trace / width * torch.eye(width, dtype=covariance.dtype)


class _Space:
    """Extensions with the same kind of input, and the covariances of their inputs, factorised once.

    Features are scaled to unit variance, and the shared covariance is shrunk; without the scale, features with large
    values (images) would dominate the others (text). The covariance of an extension is the shared one and a share `OWN`
    of its own. All features decide which extension is nearest. Text and modalities are compared with their thresholds
    separately: otherwise a typical text would compensate for any image.
    """

    def __init__(self, known: Mapping[str, TaskStatistics], parts: Sequence[Tensor]) -> None:
        self.names, tasks = list(known), list(known.values())
        means = torch.stack([task.mean for task in tasks]).double()
        self.width, count = means.shape[1], sum(task.count for task in tasks)
        shared = torch.zeros(self.width, self.width, dtype=torch.double)
        for task in tasks:
            shared += task.scatter
        shared /= count
        scale = (shared.diagonal() + means.var(0, correction=0)).sqrt()
        self._scale = torch.where(scale > 0, scale, 1.0)
        squared = self._scale * self._scale[:, None]
        shared = shrunk(shared / squared, count)
        shared.diagonal().add_(LEAST)
        self._means = means / self._scale
        self._places = [torch.arange(self.width), *parts]
        self._factors = [self._factorised(shared, task, squared) for task in tasks]
        """Extension, part (all features first) -> Cholesky factor of its covariance."""
        self._volumes = torch.stack([2 * factors[0].diagonal().log().sum() for factors in self._factors])
        samples = [(i, task.sample) for i, task in enumerate(tasks)] if parts else []
        self.thresholds = [
            threshold([self._distances(x, part, i) for part in range(1, len(self._places))])
            for i, x in samples
        ]

    def _factorised(self, shared: Tensor, task: TaskStatistics, squared: Tensor) -> list[Tensor]:
        within = task.scatter / (squared * (task.count / OWN)) + (1 - OWN) * shared
        return [torch.linalg.cholesky(within[part][:, part]) for part in self._places]

    def _distances(self, x: Tensor, part: int, i: int) -> Tensor:
        """Squared Mahalanobis distances [n] of features [n, D] from extension i, computed from one part of them."""
        deviation = (x.double() / self._scale - self._means[i])[:, self._places[part]]
        whitened: Tensor = torch.linalg.solve_triangular(self._factors[i][part], deviation.T, upper=False)
        return whitened.square().sum(0)

    def nearest(self, x: Tensor) -> list[int]:
        """Index of the extension with the highest density at features [n, D]."""
        distances = torch.stack([self._distances(x, 0, i) for i in range(len(self.names))], 1)
        found: list[int] = (distances + self._volumes).argmin(1).tolist()
        return found

    def near_enough(self, x: Tensor, places: Sequence[int]) -> list[bool]:
        """Whether features [n, D] lie within the thresholds of the extensions with indices `places`."""
        within, own = torch.ones(len(x), dtype=torch.bool), torch.tensor(places)
        for i in set(places):
            rows = own == i
            for part, limit in enumerate(self.thresholds[i].distances, 1):
                slack = SLACK * len(self._places[part])
                within[rows] &= self._distances(x[rows], part, i) <= limit + slack
        return within.tolist()


class Rule:
    """Chooses among extensions by their task statistics; the constructor factorises the covariances once."""

    def __init__(
        self,
        known: Mapping[str, TaskStatistics],
        words: int | None = None,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        """Args: words: width of the text part of the features; None: no thresholds. widths: modality -> width."""
        self._spaces: dict[Kind, _Space] = {}
        for kind in sorted({task.kind for task in known.values()}):
            fitting = {name: task for name, task in known.items() if task.kind == kind}
            width = len(next(iter(fitting.values())).mean)
            parts = [] if words is None else _parts(kind, words, widths or {}, width)
            self._spaces[kind] = _Space(fitting, parts)

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """Threshold of every extension under the current shared covariance."""
        return {
            name: known
            for s in self._spaces.values()
            for name, known in zip(s.names, s.thresholds, strict=False)
        }

    def nearest(self, x: Tensor, kind: Kind) -> list[str | None]:
        """Nearest extension for features [n, D] among those for inputs with the same modalities; no thresholds.

        None if there is no such extension.
        """
        space = self._spaces.get(kind)
        return [space.names[i] for i in space.nearest(x)] if space else [None] * len(x)

    def choose(self, x: Tensor, kind: Kind) -> list[str | None]:
        """Nearest extension for features [n, D], or None if the input exceeds its threshold."""
        space = self._spaces.get(kind)
        if space is None:
            return [None] * len(x)
        places = space.nearest(x)
        near = space.near_enough(x, places)
        return [space.names[i] if ok else None for i, ok in zip(places, near, strict=True)]


def _parts(kind: Kind, words: int, widths: Mapping[str, int], width: int) -> list[Tensor]:
    """Places of the parts of `width` features of a kind: of the text, and of each modality."""
    each = [width - words] if len(kind) == 1 else [KEPT * widths[name] for name in kind]
    return list(torch.arange(words + sum(each)).split([words, *each]))
