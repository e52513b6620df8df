"""Blocks whose experts compute every token (Llama 4): there the block adds what the new experts give."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.moe.families import scoring_of
from moextend.moe.paper_routing import paper_choice
from moextend.moe.routing import (
    ExtendedExperts,
    ExtendedRouter,
    Scope,
    add_gated,
    hard_gate,
    in_own_precision,
    reachable,
)


class DenseRouter(ExtendedRouter):
    """A router that weighs all experts, those that were not chosen with zero (Llama 4): the block adds the new ones."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the base router returns, (weights [T, m], logits [T, m]); paper: zero where a new expert won."""
        weights, logits = super(ExtendedRouter, self).forward(hidden_states, *args, **kwargs)
        if self.ext_scope.mode == "exact" or not reachable(self):
            return weights, logits
        x = hidden_states.reshape(-1, hidden_states.shape[-1])
        return dense_weights(self, x, logits)[:, : self.ext_first].to(weights.dtype), logits


def dense_weights(router: DenseRouter, x: Tensor, logits: Tensor) -> Tensor:
    """The weights of all experts, [T, m + n] in paper routing and [T, n] (the gates of the new ones) in exact."""
    with in_own_precision(x.device.type):
        return _dense_weights(router, x, logits)


def _dense_weights(router: DenseRouter, x: Tensor, logits: Tensor) -> Tensor:
    parts = reachable(router)
    new = torch.cat([part(x) for part in parts], 1)
    if router.ext_scope.mode == "exact":
        return hard_gate(new)
    how = scoring_of(router)
    top, index = logits.topk(cast(int, router.top_k), dim=-1)
    parents = [parent for part in parts for parent in part.parents]
    index, weights = paper_choice(how, logits, new, top.float().sigmoid(), index, parents, parts)
    return weights.new_zeros(len(x), logits.shape[1] + new.shape[1]).scatter(1, index, weights)


class DenseExperts(ExtendedExperts):
    """Experts that compute every token (Llama 4): the block adds the new ones."""

    def forward(self, hidden_states: Tensor) -> Tensor:  # type: ignore[override]
        """What the base's experts return."""
        return cast(Tensor, super(ExtendedExperts, self).forward(hidden_states))


class DenseBlock(nn.Module):
    """A MoE block whose experts compute every token, with new experts beside it (mixed in front of its class)."""

    ext_scope: Scope
    router: DenseRouter
    experts: DenseExperts

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """The output [T, H] of the base's experts plus that of the new ones, and the router's logits."""
        out, logits = super().forward(hidden_states)
        groups = reachable(self.experts)
        if groups:
            x = hidden_states.reshape(-1, hidden_states.shape[-1])
            out = add_gated(out, groups, x, dense_weights(self.router, x, logits))
        return out, logits


class DenseGroup(nn.Module):
    """New experts of a class that computes every token, called as other experts are (mixed in front of it)."""

    num_experts: int

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The sum [T, H] of all experts of the group; their weights scale their inputs, as the family does.

        `top_k_index` lists the experts in their order.
        """
        scaled = (hidden_states * top_k_weights.t().unsqueeze(-1)).to(hidden_states.dtype)
        each = super().forward(scaled.reshape(-1, hidden_states.shape[1]))
        return cast(Tensor, each.view(scaled.shape).sum(0))
