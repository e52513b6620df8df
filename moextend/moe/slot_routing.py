"""Slot routing: inside each slot of the base's top-k, the chosen expert and its children compete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from moextend.moe.constants import held

REACH = 0.5
"""How far a lead is pushed beyond the point where the winner changes."""


class Switch(torch.autograd.Function):
    """One where a lead is not negative, else zero; backwards it is the lead itself (straight-through).

    A lead that is `REACH` or more away from zero gets no gradient that would push it further away.
    """

    @staticmethod
    def forward(ctx: Any, lead: Tensor) -> Tensor:
        """Zeros and ones of the shape of `lead`."""
        ctx.save_for_backward(lead)
        return (lead >= 0).to(lead.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient of the identity, less what would push a decided lead further out."""
        (lead,) = ctx.saved_tensors
        outward = ((lead >= REACH) & (gradient < 0)) | ((lead <= -REACH) & (gradient > 0))
        return gradient.masked_fill(outward, 0)


def slot_choice(
    weights: Tensor,
    index: Tensor,
    leads: Tensor,
    parents: Sequence[int],
    learns: Sequence[bool],
    first: int,
) -> tuple[Tensor, Tensor]:
    """The base's weights and experts [T, k], slots of parents handed to the best child that leads its parent.

    `leads` [T, n] are the children's logits less their parent's. A tie is the parent's, and a slot keeps its weight.
    Where some children learn, the best of these meets the best of the others, parent included, in both its
    outcomes: [T, k + l], the l learning children behind the slots of the others, the loser of a slot with weight
    zero. There a tie is the learning child's, since nothing else would start it, and the id ``first + n`` stands
    where a learning child has no slot.
    """
    device = index.device
    inside = index.unsqueeze(-1) == held(parents, device)
    scores = leads.unsqueeze(1).masked_fill(~inside, -torch.inf)
    places = held([place for place, one in enumerate(learns) if one], device)
    others = held([place for place, one in enumerate(learns) if not one], device)
    bar = torch.zeros_like(weights, dtype=scores.dtype)
    if len(others):
        best, which = scores[..., others].max(-1)
        children = (first + others).to(index.dtype)
        index = torch.where(best > 0, children[which], index)
        bar = best.clamp_min(0)
    if not len(places):
        return weights, index
    rival, which = scores[..., places].max(-1)
    gate = cast(Tensor, Switch.apply(rival - bar))  # type: ignore[no-untyped-call]
    mine = inside[..., places] & (which.unsqueeze(-1) == torch.arange(len(places), device=device))
    shares = ((weights * gate).unsqueeze(-1) * mine).sum(1)
    ids = (first + places).to(index.dtype)
    nowhere = torch.full_like(ids, first + leads.shape[1])
    ids = torch.where(mine.any(1), ids, nowhere)
    kept = weights * (1 - gate)
    return torch.cat([kept, shares], 1).to(weights.dtype), torch.cat([index, ids], 1)
