"""The scorers by name and version: a changed rule gets a new version."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from moextend.bench.scorers import rules
from moextend.bench.scorers.general import GENERAL
from moextend.bench.scorers.gold import Answered, Gold
from moextend.bench.scorers.published import PUBLISHED
from moextend.bench.scorers.scorer import Scorer
from moextend.bench.stats import clustered_error
from moextend.lookup import choose


@dataclass(frozen=True)
class SetScore:
    """What a scorer makes of the answers to a task."""

    value: float
    """Mean of the items that count, 0..1 (CIDEr-D: 0..10)."""
    items: tuple[float | None, ...]
    """One value an item, in order; None where it counts only together with an item before it."""
    stderr: float | None
    """Standard error of `value` over the items that count, whole clusters drawn; None for fewer than two of them."""
    metrics: dict[str, float]
    """More metrics of all items together, in percent."""

    @property
    def n(self) -> int:
        """The items that count."""
        return sum(item is not None for item in self.items)


ALL = GENERAL + PUBLISHED
BY_NAME = {scorer.name: scorer for scorer in ALL}
SCORERS = {scorer.name: scorer.item for scorer in ALL if scorer.item is not None}
"""Those that know one item."""


def find_scorer(name: str, *, where: str | None = None) -> Scorer:
    """The scorer called `name`; UnknownName where there is none."""
    return choose("scorer", name, BY_NAME, where=where)


def score(name: str, prediction: str, gold: Gold, *, where: str | None = None) -> float:
    """0..1 for one prediction; UnknownName for a scorer that there is not, or that needs all items at once."""
    return choose("scorer", name, SCORERS, where=where)(prediction, gold)


def score_set(
    name: str,
    answered: Sequence[Answered],
    *,
    clusters: Sequence[Hashable] | None = None,
    where: str | None = None,
) -> SetScore:
    """What a scorer of either sort makes of all (at least one) answers to a task; UnknownName where there is none.

    `clusters`: what each item shares with others, such as its image; without it items are drawn one by one.
    """
    scorer = find_scorer(name, where=where)
    items: tuple[float | None, ...]
    if scorer.whole is not None:
        items = tuple(scorer.whole(answered))
    else:
        assert scorer.item is not None, "a scorer has either"
        items = tuple(scorer.item(one.prediction, one) for one in answered)
    counted = {i: item for i, item in enumerate(items) if item is not None}
    metrics = scorer.metrics((one.prediction, one) for one in answered) if scorer.metrics else {}
    values = list(counted.values())
    error = clustered_error(values, [clusters[i] if clusters else i for i in counted])
    return SetScore(fmean(values), items, error, metrics)


def is_lettered(name: str) -> bool:
    """Whether the scorer takes the answer to a question with choices for a letter."""
    return name in BY_NAME and BY_NAME[name].lettered


def own_answer(name: str, gold: Gold) -> str:
    """What a model that knows the gold would say: the most common answer as the scorer reads it, or its letter."""
    spoken = BY_NAME[name].spoken if name in BY_NAME else None
    position = rules.gold_position(gold) if is_lettered(name) else None
    if position is not None:
        return string.ascii_uppercase[position]
    answer = Counter(gold.answers).most_common(1)[0][0]
    return spoken(answer) if spoken else answer


def set_metrics(name: str, pairs: Iterable[tuple[str, Gold]]) -> dict[str, float]:
    """Metrics of all items together, in percent: for POPE precision, recall, F1 and share of "yes"."""
    scorer = BY_NAME.get(name)
    return scorer.metrics(pairs) if scorer and scorer.metrics else {}
