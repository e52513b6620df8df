"""Counts which experts the tokens of some data use, with hooks on the routers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.extension.probe import watched
from moextend.model.multimodal import MultimodalLM
from moextend.moe.dense_blocks import DenseRouter, dense_weights
from moextend.moe.families import chosen_experts
from moextend.moe.routing import ExtendedRouter
from moextend.moe.sites import Site, first_new_id

BASE = ""
"""Name of the base among the names of extensions."""


@dataclass
class Use:
    """Number of uses of experts, summed over all counted data; per MoE block, lowest first."""

    tokens: int = 0
    """Number of tokens, without padding."""
    experts: list[dict[str, Tensor]] = field(default_factory=list)
    """Extension (BASE: the base) -> number of tokens [experts] with a weight above zero for each of its experts."""
    reached: list[dict[str, int]] = field(default_factory=list)
    """Extension -> number of tokens that use at least one of its experts."""

    def add(self, block: int, used: dict[str, Tensor]) -> None:
        """Adds a batch of a block: extension -> which of its experts each token uses, [tokens, experts]."""
        while len(self.experts) <= block:
            self.experts.append({})
            self.reached.append({})
        for name, mine in used.items():
            experts, reached = self.experts[block], self.reached[block]
            experts[name] = mine.sum(0).cpu() + experts.get(name, 0)
            reached[name] = int(mine.any(1).sum()) + reached.get(name, 0)


@torch.no_grad()
def count_use(
    model: MultimodalLM,
    sites: Sequence[Site],
    data: Sequence[Conversation],
    use: Use,
    *,
    batch_size: int = 32,
) -> None:
    """Adds to `use` the experts that the tokens of `data` use in the blocks `sites`, with the active extensions."""
    real = torch.empty(0)

    def look(site: Site, x: Tensor, out: Any) -> None:
        use.add(site.layer, {k: v[real.to(v.device)] for k, v in used_experts(site, x, out).items()})

    for mask in watched(model, data, sites, look, batch_size=batch_size):
        real = mask.flatten()
        use.tokens += int(real.sum())


def used_experts(site: Site, x: Tensor, out: Any) -> dict[str, Tensor]:
    """Extension -> which of its experts each token uses, [T, experts], from a router's inputs and output."""
    router, base = site.router, first_new_id(site)
    counts = {BASE: base}
    if isinstance(router, ExtendedRouter):
        parts: Any = router.ext_parts
        counts |= {name: parts[name].count for name in router.ext_scope.active if name in parts}
    index = chosen_experts(router, out)
    index = index.reshape(-1, index.shape[-1]).long()
    total = sum(counts.values())
    chosen = torch.ones_like(index, dtype=torch.bool)
    if isinstance(router, DenseRouter) and len(counts) > 1:
        weights = dense_weights(router, x.reshape(-1, x.shape[-1]), out[1])
        if router.ext_scope.mode == "exact":
            own = torch.zeros(len(index), base, device=index.device).scatter(1, index, 1.0)
            weights = torch.cat([own, weights.to(own.dtype)], 1)
        used = weights > 0
    else:
        if len(counts) > 1:
            chosen = (index < base) | (out[1].reshape(index.shape) > 0)  # a closed gate lets nothing through
        used = torch.zeros(len(index), total, device=index.device).scatter_add(1, index, chosen.float()) > 0
    return dict(zip(counts, torch.split(used, list(counts.values()), dim=1), strict=True))
