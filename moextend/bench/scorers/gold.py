"""The interface of a scorer: its rule, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol


class Gold(Protocol):
    """An item's right answers."""

    @property
    def answers(self) -> tuple[str, ...]:
        """One gold answer, or those of several annotators."""

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The options of a multiple-choice question, in their order."""

    @property
    def position(self) -> int | None:
        """Index of the right choice, from 0, if the answer is ambiguous (two equal choices); else None."""


@dataclass(frozen=True)
class Answered:
    """One item with its prediction."""

    id: str
    """Unique among the items of a set."""
    prediction: str
    """Answer of the model."""
    answers: tuple[str, ...]
    """One gold answer, or those of several annotators."""
    question: str = ""
    """The question; for rewriting tasks the source text."""
    choices: tuple[str, ...] | None = None
    """The options of a multiple-choice question, in their order. null: none."""
    image: str = field(default="", kw_only=True)
    """File name of the first image; "" without one."""
    position: int | None = field(default=None, kw_only=True)
    """Index of the right choice, from 0, if the answer is ambiguous; else null."""

    @staticmethod
    def by(prediction: str, item: Any) -> Answered:
        """An item of a task (`bench.data.Item`), answered with `prediction`."""
        return Answered(
            item.id,
            prediction,
            item.answers,
            item.question,
            item.choices,
            image=item.image_name,
            position=item.position,
        )


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
