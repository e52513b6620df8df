"""Router rows of a new extension in the null space of earlier router inputs (idea 4).

After Adam-NSCL (arXiv 2103.07113) and GPM (arXiv 2103.09762), for router rows instead of all weights.
"""

from typing import Any

import torch
from pydantic import Field

from ._base import OpenProblem
from ._gates import Gates, parts_of


class NullSpace(OpenProblem):
    """Rows orthogonal to the principal directions of earlier router inputs; biases at or below zero. Exact routing."""

    class Config(OpenProblem.Config):
        """What can be set."""

        energy: float = Field(0.95, gt=0, le=1)
        """Share of the squared norm of earlier router inputs that lies in the directions which are left out."""
        memory_weight: float = Field(0.0, ge=0)
        """Weight of the package's retention loss beside the projection."""

    config: Config

    def around(self, model: Any, stage: Any, gates: Gates) -> dict[str, Any]:
        """Starts the rows where the new data lies in the null space, and holds them there."""
        kept = self.memory(model, stage)
        if not kept:
            return {}
        new = self.collected(model, stage, stage.held_out).router_inputs
        for site, part in parts_of(model, stage.task):
            device = part.rows.device
            directions = principal(kept.router_inputs[site.layer].to(device), self.config.energy)
            hold(part, directions, new[site.layer].to(device))
        loss = self.retention(model, stage, kept) if self.config.memory_weight else None
        return {"rates": self.rates, "extra_loss": loss}

    def save(self, model: Any, stage: Any) -> None:
        """Projects the rows once more after the last step."""
        for _, part in parts_of(model, stage.task):
            release(part)
        super().save(model, stage)


def principal(x: torch.Tensor, energy: float) -> torch.Tensor:
    """[r, H]: the fewest orthonormal directions with this share of the squared norm of x [N, H]; r < H."""
    _, sizes, directions = torch.linalg.svd(x, full_matrices=False)
    share = sizes.square().cumsum(0) / sizes.square().sum()
    return directions[: min(int((share < energy).sum()) + 1, x.shape[1] - 1)]


def outside(rows: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Rows [n, H] without their part along orthonormal `directions` [r, H]."""
    return rows - (rows @ directions.T) @ directions


@torch.no_grad()
def hold(part: Any, directions: torch.Tensor, new: torch.Tensor) -> None:
    """Starts the gates of a part at 1 on the mean of `new` [N, H], and holds its rows outside `directions`."""
    mean = outside(new.mean(0, keepdim=True), directions)
    part.rows.copy_((mean / mean.square().sum()).expand_as(part.rows))
    part.bias.zero_()

    @torch.no_grad()
    def project(module: Any, *unused: Any) -> None:
        module.rows.copy_(outside(module.rows, directions))
        module.bias.clamp_(max=0)

    part.held = (project, part.register_forward_pre_hook(project))


def release(part: Any) -> None:
    """Projects the rows of a part a last time and removes its hook."""
    if hasattr(part, "held"):
        project, handle = part.held
        project(part)
        handle.remove()
        del part.held
