"""Inputs of scorers: gold answers, questions and predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
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
