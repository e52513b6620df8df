"""Operations of a training: counted in one batch, and in proportion to the positions of all batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch


class CountedSteps:
    """Positions of all batches, padding included, and operations per position of the first batch of each kind.

    Two kinds of steps cost differently: full steps (False), and short ones that begin above the frozen layers (True).
    Only attention grows faster than the number of positions.
    """

    def __init__(self) -> None:
        self._a_position: dict[bool, float] = {}
        """Kind -> operations per position."""
        self._positions: Counter[bool] = Counter()
        """Kind -> positions in all processes, up to the last `gather`."""
        self._own: Counter[bool] = Counter()
        """Kind -> positions in this process since then."""
        self._former = False
        """Whether the training goes on from a checkpoint of a version that did not count positions."""

    def knows(self, short: bool) -> bool:
        """Whether the operations of this kind of step need not be counted any more."""
        return self._former or short in self._a_position

    def add(self, short: bool, positions: int, operations: int | None) -> None:
        """Adds a batch; `operations`: its operations if they were counted."""
        self._own[short] += positions
        if operations is not None:
            self._a_position[short] = operations / positions

    def gather(self, accelerator: Any) -> CountedSteps:
        """Takes over what the processes added since the last call; all processes call it."""
        own = torch.tensor([self._own[short] for short in (False, True)], device=accelerator.device)
        for short, positions in enumerate(accelerator.reduce(own, "sum").tolist()):
            self._positions[bool(short)] += positions
        self._own.clear()
        return self

    @property
    def total(self) -> float | None:
        """Operations of all batches up to the last `gather`; None: not known."""
        if self._former or not self._a_position:
            return None
        most = max(self._a_position.values())  # of a kind that another process counted
        return sum(count * self._a_position.get(short, most) for short, count in self._positions.items())

    def state_dict(self) -> dict[str, dict[str, float]]:
        """State at the last `gather`, for JSON; empty where earlier positions are not known."""
        if self._former:
            return {}
        return {
            "operations_per_position": {str(int(short)): each for short, each in self._a_position.items()},
            "positions": {str(int(short)): count for short, count in self._positions.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state; in checkpoints of former versions there are no positions."""
        self._former = "positions" not in state
        if not self._former:
            self._a_position = {bool(int(s)): each for s, each in state["operations_per_position"].items()}
            self._positions = Counter({bool(int(s)): count for s, count in state["positions"].items()})
