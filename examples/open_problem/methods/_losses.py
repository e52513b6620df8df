"""Losses on kept router inputs of earlier data, and losses that are added to them."""

from collections.abc import Callable
from typing import Any

import torch

from moextend.extension.retention import SampledLoss, sampled_loss
from moextend.extension.router_memory import RouterInputs
from moextend.moe.sites import Site


class AddedLoss:
    """A loss of its own beside another one, or none; its state is that of the other one."""

    def __init__(self, other: SampledLoss | None) -> None:
        self.other = other

    def own(self, batch: Any, out: Any) -> torch.Tensor:
        """Its own loss of a step."""
        raise NotImplementedError

    def __call__(self, batch: Any, out: Any) -> torch.Tensor:
        """Sum of both losses; called once per step."""
        own = self.own(batch, out)
        return own + self.other(batch, out) if self.other else own

    def state_dict(self) -> dict[str, torch.Tensor]:
        """State for a checkpoint."""
        return self.other.state_dict() if self.other else {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restores a state."""
        if self.other:
            self.other.load_state_dict(state)


Term = Callable[[Site, Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""(block, router part, kept router inputs [S, H], their places in the memory [S]) -> a mean over them."""


def sampled(
    model: Any, name: str, kept: RouterInputs, term: Term, *, weight: float, sample: int, seed: int
) -> SampledLoss:
    """``weight`` times the mean of `term` over the blocks of extension `name`; a step draws `sample` inputs a block."""

    def own(site: Site, places: torch.Tensor) -> torch.Tensor:
        part: Any = site.router.ext_parts[name]
        return term(site, part, kept[site.layer].to(places.device)[places], places)

    return sampled_loss(model, name, kept, own, weight=weight, sample=sample, seed=seed)


def excess(margin: float) -> Term:
    """Hinge on the logits of all kept inputs, whatever the base chooses: ``mean(relu(r x + b + margin))``."""
    return lambda site, part, x, places: (part(x) + margin).clamp_min(0).mean()
