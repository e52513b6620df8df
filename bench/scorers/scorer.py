"""The interface of a scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from moextend.bench.scorers.gold import Answered, Gold

Item = Callable[[str, Gold], float]
Metrics = Callable[[Iterable[tuple[str, Gold]]], dict[str, float]]


@dataclass(frozen=True)
class Scorer:
    """One rule; either `item`, for one item, or `items`, for all items of a task at once."""

    name: str
    """name@version"""
    rule: str
    """Description in one line."""
    source: str = "this project"
    comparable_with: str = "none"
    """Published numbers that are comparable; "none" for rules of this project."""
    item: Item | None = None
    items: Callable[[Sequence[Answered]], Sequence[float | None]] | None = None
    metrics: Metrics | None = None
    """More metrics of all items together, in percent."""
    top: float = 1.0
    """Maximum score of an item."""
    by_image: bool = False
    """Whether the rule depends on the name of the image."""
    lettered: bool = False
    """Whether the answer to a question with choices is a letter."""
    spoken: Callable[[str], str] | None = None
    """Gold answer -> expected output of a model; None: they are equal."""
    weight: Callable[[Gold], float] | None = None
    """Weight of an item in the mean, such as its number of words; None: all items count the same."""
    shows: str = ""
    """What the score is, where the name says otherwise."""
    own_is_top: bool = True
    """Whether a gold answer reaches the maximum; not so for averages over references or weighted n-grams."""


def mean_of(name: str, item: Item) -> Metrics:
    """Metric with the mean of a stricter rule, in percent, under its name."""

    def metrics(pairs: Iterable[tuple[str, Gold]]) -> dict[str, float]:
        return {name: 100 * fmean(item(prediction, gold) for prediction, gold in pairs)}

    return metrics
