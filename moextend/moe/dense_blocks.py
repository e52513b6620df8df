"""Blocks with experts that compute every token (Llama 4): the block adds the output of the new experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.moe import strengths
from moextend.moe.competing import paper_choice
from moextend.moe.families import scoring_of
from moextend.moe.routing import (
    ExtendedExperts,
    ExtendedRouter,
    Scope,
    add_gated,
    hard_gate,
    in_own_precision,
    only,
    reachable,
    weakened,
)


class DenseRouter(ExtendedRouter):
    """Mixin for a router with a weight for every expert, zero if not chosen (Llama 4); the block adds the new ones."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Output of the base router (weights [T, m], logits [T, m]); paper: weight zero where a new expert wins."""
        weights, logits = super(ExtendedRouter, self).forward(hidden_states, *args, **kwargs)
        if self.ext_scope.mode == "exact" or not reachable(self):
            return weights, logits
        x = hidden_states.reshape(-1, hidden_states.shape[-1])
        return dense_weights(self, x, logits)[:, : self.ext_first].to(weights.dtype), logits


def dense_weights(router: DenseRouter, x: Tensor, logits: Tensor) -> Tensor:
    """paper: weights [T, m + n] of all experts; exact: gates [T, n] of the new ones."""
    with in_own_precision(x.device.type):
        return _dense_weights(router, x, logits)


def _dense_weights(router: DenseRouter, x: Tensor, logits: Tensor) -> Tensor:
    parts = reachable(router)
    if router.ext_scope.mode == "exact":
        return hard_gate(torch.cat([part(x) for part in parts], 1))
    top, index = logits.topk(cast(int, router.top_k), dim=-1)
    new = torch.cat([part(x) for part in parts], 1)
    parents = [parent for part in parts for parent in part.parents]
    index, weights = paper_choice(
        scoring_of(router), logits, new, top.float().sigmoid(), index, parents, parts
    )
    return weights.new_zeros(len(x), logits.shape[1] + new.shape[1]).scatter(1, index, weights)


class DenseExperts(ExtendedExperts):
    """Mixin for experts that compute every token (Llama 4); the block adds the new ones."""

    def forward(self, hidden_states: Tensor) -> Tensor:  # type: ignore[override]
        """Output of the base's experts."""
        return cast(Tensor, super(ExtendedExperts, self).forward(hidden_states))


class DenseBlock(nn.Module):
    """Mixin for a MoE block with experts that compute every token; adds the output of the new experts."""

    ext_scope: Scope
    router: DenseRouter
    experts: DenseExperts

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Output [T, H] of the base's and the new experts, and the router's logits."""
        if weak := weakened(self.experts):
            return self._blended(hidden_states, weak)
        out, logits = super().forward(hidden_states)
        groups = reachable(self.experts)
        if groups:
            x = hidden_states.reshape(-1, hidden_states.shape[-1])
            out = add_gated(out, groups, x, dense_weights(self.router, x, logits))
        return out, logits

    def _blended(self, hidden_states: Tensor, weak: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """Output with strengths below 1: here weights scale inputs, so the outputs are blended, not the weights."""
        total: Tensor | None = None
        for share, names in strengths.levels(weak):
            with only(self.ext_scope, names):
                out, logits = self.forward(hidden_states)
            total = out * share if total is None else total + out * share
        assert total is not None
        return total, logits


class DenseGroup(nn.Module):
    """Mixin for new experts of a class that computes every token; has the call signature of other experts."""

    num_experts: int

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Sum [T, H] of all experts of the group. The weights scale the inputs, as in this family.

        `top_k_index` lists the experts in ascending order.
        """
        scaled = (hidden_states * top_k_weights.t().unsqueeze(-1)).to(hidden_states.dtype)
        each = super().forward(scaled.reshape(-1, hidden_states.shape[1]))
        return cast(Tensor, each.view(scaled.shape).sum(0))
