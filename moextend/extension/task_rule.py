"""The decision rule of task inference: linear discriminant analysis, with a threshold for each part of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from moextend.extension.task_inference import TaskStatistics

REJECTED = 0.01
"""Share of an extension's own inputs that its threshold may reject."""
FEWEST = 39
"""Minimum number of held-out inputs for thresholds: n of them guarantee no rejection rate below 1 / (n + 1)."""
SLACK = 1e-4
"""Squared distance per feature of a part by which an input may exceed a threshold. If many inputs are alike (one
question for all), many distances equal the threshold, and rounding errors would decide."""

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


class _Space:
    """Extensions with the same kind of input, and the shared covariance of their inputs, factorised once.

    Features are scaled to unit variance, and the covariance is shrunk by 0.01; without the scale, features with large
    values (images) would dominate the others (text). All features decide which extension is nearest. Text and
    modalities are compared with their thresholds separately: otherwise a typical text would compensate for any image.
    """

    def __init__(self, known: Mapping[str, TaskStatistics], parts: Sequence[Tensor]) -> None:
        self.names = list(known)
        means = torch.stack([task.mean for task in known.values()]).double()
        self.width = means.shape[1]
        within = torch.zeros(means.shape[1], means.shape[1], dtype=torch.double)
        for task in known.values():
            within += task.scatter
        within /= sum(task.count for task in known.values())
        scale = (within.diagonal() + means.var(0, correction=0)).sqrt()
        self._scale = torch.where(scale > 0, scale, 1.0)
        within /= self._scale
        within /= self._scale[:, None]
        within.diagonal().add_(0.01)
        self._means = means / self._scale
        factor = torch.linalg.cholesky(within)
        self._full = (torch.arange(self.width), factor)
        # The text comes first: a leading block of the factor is the factor of the leading block.
        blocks = [torch.linalg.cholesky(within[part][:, part]) for part in parts[1:]]
        self._parts = list(zip(parts, [factor[part][:, part] for part in parts[:1]] + blocks, strict=True))
        samples = [self._by_part(task.sample) for task in known.values()]
        self.thresholds = [threshold([d[:, i] for d in ds]) if ds else None for i, ds in enumerate(samples)]

    def _distances(self, x: Tensor, part: Tensor, factor: Tensor) -> Tensor:
        """Squared Mahalanobis distances [n, extensions] of scaled features [n, D], computed from one part of them."""
        z, means = (
            torch.linalg.solve_triangular(factor, y[:, part].T, upper=False).T for y in (x, self._means)
        )
        return torch.stack([(z - mean).square().sum(1) for mean in means], 1)

    def _by_part(self, x: Tensor) -> list[Tensor]:
        """Distances of features [n, D], one tensor for each part."""
        return [self._distances(x.double() / self._scale, *part) for part in self._parts]

    def nearest(self, x: Tensor) -> list[int]:
        """Index of the nearest extension for features [n, D]."""
        found: list[int] = self._distances(x.double() / self._scale, *self._full).argmin(1).tolist()
        return found

    def near_enough(self, x: Tensor, places: Sequence[int]) -> list[bool]:
        """Whether features [n, D] lie within the thresholds of the extensions with indices `places`."""
        within, own = torch.ones(len(x), dtype=torch.bool), torch.tensor(places)
        for i, distances in enumerate(self._by_part(x)):
            kept = [known.distances[i] for known in self.thresholds if known]
            limits = torch.tensor(kept, dtype=torch.double)
            slack = SLACK * len(self._parts[i][0])
            within &= distances.gather(1, own[:, None]).squeeze(1) <= limits[own] + slack
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
            limit = [words + (widths or {}).get("image", 0)] if words is not None and not kind else []
            fitting = _shortened(fitting, limit)
            width = len(next(iter(fitting.values())).mean)
            parts = [] if words is None else _parts(kind, words, widths or {}, width)
            self._spaces[kind] = _Space(fitting, parts)

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """Threshold of every extension under the current shared covariance."""
        known = [pair for s in self._spaces.values() for pair in zip(s.names, s.thresholds, strict=True)]
        return {name: threshold for name, threshold in known if threshold is not None}

    def nearest(self, x: Tensor, kind: Kind) -> list[str | None]:
        """Nearest extension for features [n, D] among those for inputs with the same modalities; no thresholds.

        None if there is no such extension.
        """
        space = self._spaces.get(kind)
        return [space.names[i] for i in space.nearest(x[:, : space.width])] if space else [None] * len(x)

    def choose(self, x: Tensor, kind: Kind) -> list[str | None]:
        """Nearest extension for features [n, D], or None if the input exceeds its threshold."""
        space = self._spaces.get(kind)
        if space is None:
            return [None] * len(x)
        x = x[:, : space.width]
        places = space.nearest(x)
        near = space.near_enough(x, places)
        return [space.names[i] if ok else None for i, ok in zip(places, near, strict=True)]


def _shortened(known: Mapping[str, TaskStatistics], widths: Sequence[int]) -> dict[str, TaskStatistics]:
    """Statistics that all have the fewest numbers, and no more than `widths`.

    Of text alone they are then without the image part, which is 0, if the model or one of the models had no images.
    """
    width = min([*widths, *(len(task.mean) for task in known.values())])
    return {
        name: task if len(task.mean) == width
        else replace(task, mean=task.mean[:width], scatter=task.scatter[:width, :width], sample=task.sample[:, :width])
        for name, task in known.items()
    }  # fmt: skip


def _parts(kind: Kind, words: int, widths: Mapping[str, int], width: int) -> list[Tensor]:
    """Places of the parts of `width` features of a kind: of the text, and of each modality (means, deviations)."""
    found, start = [torch.arange(words)], words
    if len(kind) == 1:
        return [*found, torch.arange(words, width)]
    means = sum(widths[name] for name in kind)
    for name in kind:
        own = torch.arange(start, start + widths[name])
        found.append(torch.cat([own, own + means]))
        start += widths[name]
    return found
