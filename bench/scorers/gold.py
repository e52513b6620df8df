"""What a scorer knows of an item."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


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
        """Place of the right choice, from 0, where the answer does not say it (two choices of one text); else None."""


class Question(Gold, Protocol):
    """An item as scorers of a full set see it."""

    @property
    def id(self) -> str:
        """Unique among the items of a set."""

    @property
    def question(self) -> str:
        """The question; the source text of a task that rewrites."""

    @property
    def image_name(self) -> str:
        """The file name of the first image; "" where it has none."""


@dataclass(frozen=True)
class Answered:
    """One item with what was answered."""

    id: str
    """Unique among the items of a set."""
    prediction: str
    """What the model answered."""
    answers: tuple[str, ...]
    """One gold answer, or those of several annotators."""
    question: str = ""
    """The question; the source text of a task that rewrites."""
    choices: tuple[str, ...] | None = None
    """The options of a multiple-choice question, in their order. null: none."""
    image: str = field(default="", kw_only=True)
    """The file name of the first image; "" where it has none."""
    position: int | None = field(default=None, kw_only=True)
    """Place of the right choice from 0, where the answer does not say it; else null."""

    @staticmethod
    def by(prediction: str, item: Question) -> Answered:
        """`item`, answered with `prediction`."""
        return Answered(
            item.id,
            prediction,
            item.answers,
            item.question,
            item.choices,
            image=item.image_name,
            position=item.position,
        )
