"""Slot routing: inside each slot of the base's top-k, the chosen expert and its children compete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from moextend.moe.kernels import held

REACH = 0.5
"""Distance of a lead from the decision boundary beyond which it gets no further gradient."""


class Switch(torch.autograd.Function):
    """1 if a lead is not negative, else 0; the backward pass uses the identity (straight-through).

    A lead with an absolute value of `REACH` or more gets no gradient that increases it further.
    """

    @staticmethod
    def forward(ctx: Any, lead: Tensor) -> Tensor:
        """Zeros and ones of the shape of `lead`."""
        ctx.save_for_backward(lead)
        return (lead >= 0).to(lead.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Gradient of the identity, without the part that moves a decided lead further from zero."""
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
    """The base's weights and experts [T, k], with each parent's slot given to its best child with a positive lead.

    `leads` [T, n] are the children's logits minus their parent's. The parent wins a tie, and the slot's weight stays.
    If l children are in training, the result is [T, k + l]: the last l columns are these children. The best child in
    training competes with the best of the others, parent included, and the loser of a slot gets weight zero. The child
    in training wins a tie, because it would get no gradient otherwise. A child in training without a slot has the id
    ``first + n``.
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
