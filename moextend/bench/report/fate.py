"""The fate of an item over the stages: kept, learned, regained, lost, or wrong all the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moextend.bench.scorers import find_scorer
from moextend.errors import InputError

if TYPE_CHECKING:
    from numpy import ndarray
    from pandas import DataFrame

    Array = ndarray[Any, Any]

FATES = ("kept", "learned", "regained", "lost", "wrong")
"""The fates, in the order of their numbers."""
UNKNOWN = -1
RIGHT = 0.5
"""Part of the top score from which an answer counts as right."""


def fates(right: Array) -> Array:
    """What happens to every item at every stage, from what was right before the first stage and after each.

    An item is, at a stage,

    - kept: right before the stage and after it;
    - learned: wrong before, right after, and never right before that;
    - regained: wrong before, right after, and right at some earlier stage, so that it had been lost;
    - lost: right before, wrong after;
    - wrong: wrong before and after, whether it was never right or lost earlier.

    The base counts as a stage: an item that it answers is kept or lost from the first stage on, not learned. Right
    after a stage are the items that are kept, learned or regained: the three shares add up to the accuracy.

    Args:
        right: [stages + 1, items] of 1 (right), 0 (wrong) and NaN (not scored); row 0 is the base.

    Returns:
        [stages, items] of places in FATES; UNKNOWN where an item is not scored before or after.
    """
    right = np.asarray(right, float)
    before, after = right[:-1] == 1, right[1:] == 1
    once = np.logical_or.accumulate(right == 1)[:-1]
    found = np.select([before & after, after & ~once, after & once, before], [0, 1, 2, 3], 4)
    return np.where(np.isnan(right[:-1]) | np.isnan(right[1:]), UNKNOWN, found)


def item_fates(results: DataFrame) -> DataFrame:
    """A row per item and stage of every sequence run: `fate`, with the columns that name run, task and item.

    `results` is a frame with items (moextend.bench.frame). Items without a score of their own are left out.
    """
    import pandas as pd

    names = ["sequence", "run", "method", "seed", "order", "task", "role", "learned_at"]
    scored = results[(results["mode"] == "sequence") & results["score"].notna()]
    if scored.empty:
        return pd.DataFrame(columns=[*names, "stage", "item", "fate"])
    scored = scored.assign(right=_right(scored))
    found = []
    for _, own in scored.groupby(["sequence", "run", "task"], observed=True, sort=False):
        places, items = pd.factorize(own["item"])
        right = np.full((int(own["stage"].max()) + 1, len(items)), np.nan)
        right[own["stage"], places] = own["right"]
        made = pd.DataFrame({name: own[name].iloc[:1].repeat(right[1:].size).array for name in names})
        made["stage"] = np.repeat(np.arange(1, len(right), dtype="int16"), len(items))
        made["item"] = pd.Categorical(
            np.tile(items.to_numpy(), len(right) - 1), results["item"].cat.categories
        )
        codes = fates(right).ravel()
        made["fate"] = pd.Categorical.from_codes(codes, pd.Index(FATES))
        found.append(made)
    return pd.concat(found, ignore_index=True)


def fate_shares(results: DataFrame) -> DataFrame:
    """A row per run, task and stage: per cent of the task's items that are kept, learned, regained, lost and wrong."""
    import pandas as pd

    known = item_fates(results).dropna(subset="fate")
    names = ["sequence", "run", "method", "seed", "order", "task", "role", "learned_at", "stage"]
    if known.empty:
        return pd.DataFrame(columns=[*names, *FATES])
    counts = known.groupby([*names, "fate"], observed=True, sort=False).size().unstack("fate", fill_value=0)
    counts = counts.reindex(columns=list(FATES), fill_value=0)
    shares = counts.mul(100).div(counts.sum(axis="columns"), axis="index")
    return shares.rename_axis(columns=None).reset_index()


def _right(scored: DataFrame) -> Any:
    """Whether each score reaches RIGHT of its scorer's top."""
    tops = scored["scorer"].astype(str).map({name: top(name) for name in scored["scorer"].unique()})
    return (scored["score"] >= RIGHT * tops).astype(float)


def top(scorer: str) -> float:
    """The most that an item can score; 1 of text tasks, and of plug-ins that are not there any more."""
    try:
        return find_scorer(scorer).top
    except InputError:
        return 1.0
