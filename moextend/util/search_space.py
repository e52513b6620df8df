"""Ranges of settings that a search tries; a field of a config declares its own in its annotation.

learning_rate: Annotated[Rate | None, LogRange(0.1, 10, relative=True)] = None
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

DIGITS = 3
"""Significant digits of a drawn number, so that the name of a run can hold it."""


@dataclass(frozen=True)
class LogRange:
    """Numbers from `low` to `high`, evenly on a logarithmic scale."""

    low: float
    high: float
    relative: bool = False
    """Whether both are factors of the sequence's own value, the key of `train` with the same name."""

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"not a logarithmic range: {self.low:g} to {self.high:g} (0 < low < high)")

    def at(self, place: float, own: float = 1.0) -> float:
        """The number at `place`, 0..1, with `DIGITS` significant digits; `own` is what relative factors multiply."""
        value = self.low * (self.high / self.low) ** place
        return float(f"{value * (own if self.relative else 1.0):.{DIGITS}g}")

    def __str__(self) -> str:
        times = " times train's" if self.relative else ""
        return f"{self.low:g} to {self.high:g}{times} (log)"


@dataclass(frozen=True)
class Choices:
    """A few values, all equally likely."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("no values to choose from")

    def at(self, place: float, own: float = 1.0) -> Any:
        """The value at `place`, 0..1."""
        return self.values[min(int(place * len(self.values)), len(self.values) - 1)]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


Range = LogRange | Choices
SearchSpace = Mapping[str, Range]
"""Setting -> the values to search, in the order of the config's fields."""


def declared(config: type[BaseModel]) -> dict[str, Range]:
    """The ranges that the fields of a config declare."""
    return {
        name: found
        for name, field in config.model_fields.items()
        for found in field.metadata
        if isinstance(found, LogRange | Choices)
    }
