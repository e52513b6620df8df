"""Operations of a training: counted in a few batches, and interpolated for all others.

A pass over B rows of L tokens, padding included, costs a·B·L + c·B·L² operations: per position, a line over the length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

APART = 1.25
"""Factor by which a counted batch is longer or shorter than all before: at most 40 batches up to 8,192 tokens."""


class CountedSteps:
    """Positions of all batches, and operations per position of the shortest and the longest counted batch of each kind.

    Two kinds of steps cost differently: full steps (0), and short ones that begin above the frozen layers (1).
    """

    def __init__(self) -> None:
        self._counted: dict[int, dict[int, float]] = {0: {}, 1: {}}
        """Kind -> length of the shortest and the longest counted batch -> operations per position."""
        self._positions: Counter[int] = Counter()
        """Kind -> positions in all processes, up to the last `gather`."""
        self._weighted: Counter[int] = Counter()
        """Kind -> sum of positions times length, likewise."""
        self._own: Counter[tuple[int, int]] = Counter()
        """(kind, length) -> positions in this process since then."""
        self._former = False
        """Whether the training goes on from a checkpoint of a version that did not count positions."""

    def knows(self, short: bool, length: int) -> bool:
        """Whether the operations of such a step need not be counted any more."""
        known = self._counted[short]
        return self._former or (bool(known) and min(known) <= length * APART and length <= max(known) * APART)

    def add(self, short: bool, rows: int, length: int, operations: int | None) -> None:
        """Adds a batch of rows of this length, padding included; `operations`: its operations if they were counted."""
        self._own[int(short), length] += rows * length
        if operations is not None:
            known = self._counted[short]
            known[length] = operations / (rows * length)
            self._counted[short] = {each: known[each] for each in (min(known), max(known))}

    def gather(self, accelerator: Any) -> CountedSteps:
        """Takes over what the processes added since the last call; all processes call it."""
        own = torch.zeros(2, 2, dtype=torch.int64)
        for (kind, length), positions in self._own.items():
            own[kind] += torch.tensor([positions, positions * length])
        for kind, (positions, weighted) in enumerate(
            accelerator.reduce(own.to(accelerator.device), "sum").tolist()
        ):
            self._positions[kind] += positions
            self._weighted[kind] += weighted
        self._own.clear()
        return self

    @property
    def total(self) -> float | None:
        """Operations of all batches up to the last `gather`; None: not known."""
        lines = {kind: _line(known) for kind, known in self._counted.items() if known}
        if self._former or not lines:
            return None
        total, full = 0.0, next(iter(lines.values()))  # for a kind that another process counted
        for kind, positions in self._positions.items():
            constant, slope = lines.get(kind, full)
            total += constant * positions + slope * self._weighted[kind]
        return total

    def state_dict(self) -> dict[str, Any]:
        """State at the last `gather`, for JSON; empty where earlier positions are not known."""
        if self._former:
            return {}
        return {
            "operations_per_position": self._counted,
            "positions": self._positions,
            "positions_times_length": self._weighted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state; in checkpoints of former versions there are no positions."""
        self._former = "positions_times_length" not in state
        if not self._former:
            self._counted = {
                int(kind): {int(length): each for length, each in known.items()}
                for kind, known in state["operations_per_position"].items()
            }
            self._positions = Counter({int(kind): count for kind, count in state["positions"].items()})
            self._weighted = Counter(
                {int(kind): count for kind, count in state["positions_times_length"].items()}
            )


def _line(known: Mapping[int, float]) -> tuple[float, float]:
    """Operations per position: a constant, and the part that grows with the length."""
    (short, low), (long, high) = min(known.items()), max(known.items())
    slope = (high - low) / (long - short) if long > short else 0.0
    return low - slope * short, slope
