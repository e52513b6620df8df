"""The settings that a search tries: points of a scrambled Halton sequence, which fill a space evenly.

The first N trials of a larger budget are those of budget N, and every search draws the same ones, so that nothing but
the runs has to be kept. Reference: Owen, 2017, "A randomized Halton algorithm in R", arXiv 1706.02808.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moextend.bench.methods import MethodSpec
from moextend.util.search_space import LogRange, SearchSpace

MOST = 1000
"""Largest budget."""
SEED = 0
"""Scrambles the sequence, for every search alike."""


def space_of(method: MethodSpec, stages: int = 2) -> SearchSpace:
    """The settings to search: those that the method declares, that its text does not fix, and that have an effect."""
    idle = method.kind.later_only if stages == 1 else ()
    declared = method.make().search_space
    found = {name: one for name, one in declared.items() if not method.sets(name) and name not in idle}
    # Relative ranges first: the n-th trials of all methods then have the same learning rate.
    return dict(sorted(found.items(), key=lambda pair: not _is_relative(pair[1])))


def draw(space: SearchSpace, budget: int, own: Mapping[str, float]) -> list[dict[str, Any]]:
    """Settings of `budget` trials, all different, fewer if the space has fewer.

    Args:
        own: key of `train` -> the sequence's value, for relative ranges.
    """
    from scipy.stats import qmc

    points = qmc.Halton(len(space), rng=SEED).random(MOST)
    found: dict[str, dict[str, Any]] = {}
    for point in points.tolist():
        drawn = {
            name: one.at(place, own.get(name, 1.0))
            for (name, one), place in zip(space.items(), point, strict=True)
        }
        found.setdefault(str(drawn), drawn)
        if len(found) == budget:
            break
    return list(found.values())


def _is_relative(found: object) -> bool:
    return isinstance(found, LogRange) and found.relative
