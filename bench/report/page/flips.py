"""Items that become right or wrong from one stage to the next, with McNemar's test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moextend.bench.report.fate import FATES

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]


@dataclass(frozen=True)
class Flip:
    """What happens to the items of one task at one stage of one run."""

    run: int
    stage: int
    counts: tuple[int, ...]
    """Items by fate, in the order of FATES."""
    p: float
    """Exact McNemar test, two-sided: as many items become right as become wrong."""


def flips(run: int, right: Array, fate: Array, *, unknown: int) -> list[Flip]:
    """One record per stage at which items were scored before and after.

    Args:
        right: [stages + 1, items], see fate.fates.
        fate: [stages, items] of places in FATES, or `unknown`.
    """
    import numpy as np

    found = []
    for stage, own in enumerate(fate, 1):
        known = own[own != unknown]
        if len(known):
            counts = np.bincount(known, minlength=len(FATES))
            by_name = dict(zip(FATES, map(int, counts), strict=True))
            gained = by_name["learned"] + by_name["regained"]
            found.append(Flip(run, stage, tuple(map(int, counts)), mcnemar(gained, by_name["lost"])))
    return found


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p: each of the items that change is as likely to become right as wrong (McNemar, 1947)."""
    from scipy.special import bdtr

    changed = gained + lost
    return 1.0 if changed == 0 else min(1.0, 2 * float(bdtr(min(gained, lost), changed, 0.5)))
