"""New experts that are shut at the tokens of images, from the first step or after some steps (ideas 1, 2 and 6)."""

from typing import Any

import torch
from pydantic import Field

from ._base import OpenProblem
from ._gates import Gates
from ._losses import AddedLoss


class TextGates(OpenProblem):
    """New experts that compute tokens of text only."""

    class Config(OpenProblem.Config):
        """What can be set."""

        media: Any = "shut"
        kept: Any = "text"
        shut_after: int = Field(0, ge=0)
        """Number of steps in which tokens of images are open."""

    config: Config

    def around(self, model: Any, stage: Any, gates: Gates) -> dict[str, Any]:
        """The loss also counts the steps, and shuts the gates."""
        given = super().around(model, stage, gates)
        if self.config.shut_after:
            given["extra_loss"] = Counted(given.get("extra_loss"), gates, self.config.shut_after)
        return given


class Counted(AddedLoss):
    """Counts the steps: the gates are open at tokens of images until the last of the first `steps`."""

    def __init__(self, other: Any, gates: Gates, steps: int) -> None:
        super().__init__(other)
        self.gates, self.steps, self.done = gates, steps, 0
        gates.shut = False

    def own(self, batch: Any, out: Any) -> torch.Tensor:
        """Zero."""
        self._count(self.done + 1)
        return torch.zeros(())

    def _count(self, done: int) -> None:
        self.done, self.gates.shut = done, done >= self.steps

    def state_dict(self) -> dict[str, torch.Tensor]:
        """State for a checkpoint, with the steps done."""
        return {"done": torch.tensor(self.done), **super().state_dict()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restores a state."""
        self._count(int(state["done"]))
        super().load_state_dict(state)
