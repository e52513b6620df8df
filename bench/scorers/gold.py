"""What a scorer knows of an item."""

from __future__ import annotations

from typing import Protocol


class Gold(Protocol):
    """An item's right answers."""

    @property
    def answers(self) -> tuple[str, ...]:
        """One gold answer, or those of several annotators."""

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The options of a multiple-choice question, in their order."""
