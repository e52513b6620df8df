"""Where a newer extension opens, older ones close: extensions do not add up, as in slot routing. Exact routing."""

from typing import Any

import torch

from moextend.moe.routing import ExtendedRouter, reachable

from ._base import OpenProblem
from ._gates import Gates, parts_of


class NewestFirst(OpenProblem):
    """Each gate times one minus the largest gate of each newer extension."""

    class Config(OpenProblem.Config):
        """What can be set."""

        media: Any = "shut"
        kept: Any = "text"

    config: Config

    def gates(self, model: Any, name: str) -> Gates:
        """Also adds the hook of each router, once."""
        for site, _ in parts_of(model, name):
            if not hasattr(site.router, "newest_first"):
                site.router.newest_first = site.router.register_forward_hook(close_older)
        return super().gates(model, name)


def close_older(router: Any, args: Any, out: Any) -> Any:
    """Output of a router with the gates of older extensions closed; the gates are its last columns."""
    counts = [part.count for part in reachable(router)] if isinstance(router, ExtendedRouter) else []
    if len(counts) < 2:
        return None
    first = out[1].shape[1] - sum(counts)
    gates = newest_first(out[1][:, first:], counts)
    return (out[0], torch.cat([out[1][:, :first], gates], 1), *out[2:])


def newest_first(gates: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Gates [T, n] of extensions with `counts` new experts, oldest first, after newer ones closed older ones."""
    left, kept = torch.ones_like(gates[:, :1]), []
    for own in reversed(gates.split(counts, 1)):
        kept.append(own * left)
        left = left * (1 - own.amax(1, keepdim=True))
    return torch.cat(kept[::-1], 1)
