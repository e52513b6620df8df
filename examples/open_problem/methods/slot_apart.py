"""What makes slot routing retain more than exact routing, one property at a time.

Exact routing with `start` below 1 starts near the decision, with `hard` has a gate of 0 or 1, and with `with_parent`
acts and is retained only where the base chooses the parent. Slot routing with `start` above 0 starts away from the tie,
and with `everywhere` is retained on all kept inputs.
"""

from typing import Any

import torch
from pydantic import Field

from ._base import OpenProblem
from ._gates import Gates, chosen_parents, parts_of
from ._losses import excess, sampled


class SlotApart(OpenProblem):
    """Exact routing with properties of slot routing, or slot routing without some of them."""

    class Config(OpenProblem.Config):
        """What can be set."""

        start: float | None = Field(None)
        """Bias of new rows before the training; None: 1 in exact routing, 0 in slot routing."""
        hard: bool = False
        with_parent: bool = False
        everywhere: bool = False

    config: Config

    def gates(self, model: Any, name: str) -> Gates:
        """Hooks for the gate's range and its tokens."""
        config = self.config
        return Gates(
            model, name, shut=config.media == "shut", hard=config.hard, with_parent=config.with_parent
        )

    def around(self, model: Any, stage: Any, gates: Gates) -> dict[str, Any]:
        """Sets the start of the biases."""
        if self.config.start is not None:
            for _, part in parts_of(model, stage.task):
                torch.nn.init.constant_(part.bias, self.config.start)
        return super().around(model, stage, gates)

    def retention(self, model: Any, stage: Any, kept: Any) -> Any:
        """The package's loss, on other inputs."""
        config, hinge = self.config, excess(self.config.margin)
        if not (config.everywhere or config.with_parent):
            return super().retention(model, stage, kept)

        def at_parent(site: Any, part: Any, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            logits = part(x).masked_fill(~chosen_parents(site, part)(x), -torch.inf)
            return (logits + config.margin).clamp_min(0).mean()

        return sampled(
            model, stage.task, kept.router_inputs, hinge if config.everywhere else at_parent,
            weight=config.memory_weight, sample=config.memory_sample, seed=stage.seed,
        )  # fmt: skip
