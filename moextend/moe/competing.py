"""How new experts compete: in paper routing by a softmax over old and new experts, top-k of it, and calibrations of the
chosen weights; in slot routing inside each slot of the base's top-k, the chosen expert against its children."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from moextend.moe.families import with_parents
from moextend.moe.kernels import held
from moextend.moe.router_parts import RouterPart
from moextend.moe.scoring import Scoring


def paper_choice(
    how: Scoring,
    logits: Tensor,
    new: Tensor,
    base_weights: Tensor,
    base_index: Tensor,
    parents: Sequence[int],
    parts: Sequence[RouterPart],
) -> tuple[Tensor, Tensor]:
    """Chosen experts [T, k] and their calibrated weights [T, k], from logits [T, m] and new logits [T, n].

    If no new expert wins, the base's own decision (`base_weights`, `base_index`) is used unchanged, unless new experts
    can change the order of the old ones or the old ones have gains. New experts inherit the correction bias and the
    gain of their parents. If the base chooses from some groups of experts only, the new experts compete with its
    choice, as a group that is always open.
    """
    old = logits.shape[-1]
    if how.score is None:
        scores, share = merged_softmax(logits, new)
    else:  # element-wise scores of the old experts do not change: their share is one
        scores = torch.cat([how.score(_wide(logits)), how.score(_wide(new))], 1)
        share = torch.ones_like(scores[:, :1])
    if how.choose is not None:
        weights, index = how.choose(torch.cat([logits, new.to(logits.dtype)], 1))
        change = _calibrations(parts, scores)
        if change is not None:
            weights = (weights + change.gather(1, index)).clamp_min(1e-6)
        return index, weights
    index = torch.topk(_merit(how, logits, new, scores, base_index, parents), base_index.shape[1], dim=-1)[1]
    won = (index >= old).any(-1, keepdim=True)
    if how.keeps_order:
        index = torch.where(
            won, index, base_index
        )  # the base's own decision, verbatim, where no new expert wins
    chosen = scores.gather(1, index)
    total = torch.ones_like(share)
    if how.normalise:
        total = (chosen.sum(-1, keepdim=True) + how.eps).clamp_min(how.floor)
    weights = chosen / total
    if how.gain is None and how.keeps_order:
        kept = base_weights.to(scores.dtype) / how.scale
        weights = torch.where(won, weights, kept if how.normalise else kept * share)
    change = _calibrations(parts, scores)
    if change is not None:
        change = change.gather(1, index) / total
        weights = (weights + change).clamp_min(1e-6)
        if how.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
    if how.gain is not None:
        weights = weights * with_parents(how.gain, parents).to(weights.dtype)[index]
    return index, weights * how.scale


def _merit(
    how: Scoring, logits: Tensor, new: Tensor, scores: Tensor, base_index: Tensor, parents: Sequence[int]
) -> Tensor:
    """Values [T, m + n] by which the k experts are chosen."""
    merit = torch.cat([logits, new.to(logits.dtype)], 1) if how.bias_on_logits else scores
    if how.bias is not None:
        merit = merit + with_parents(how.bias, parents).to(merit.dtype)
    if how.limited:
        own = merit[:, : logits.shape[1]]
        open_ = torch.full_like(own, -torch.inf).scatter(1, base_index, own.gather(1, base_index))
        merit = torch.cat([open_, merit[:, logits.shape[1] :]], 1)
    return merit


def merged_softmax(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over old and new logits [T, m + n], and the share [T, 1] of the old experts.

    The old weights are the base's softmax times the share, so they equal the base's bit for bit if the share is one.
    """
    old, new = _wide(old), _wide(new)
    old_sum, new_sum = old.logsumexp(-1, keepdim=True), new.logsumexp(-1, keepdim=True)
    total = torch.logaddexp(old_sum, new_sum)
    share = (old_sum - total).exp()
    return torch.cat([old.softmax(-1) * share, (new - total).exp()], 1), share


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _calibrations(parts: Sequence[RouterPart], scores: Tensor) -> Tensor | None:
    """Sum [T, m + n] of all corrections; each reads and corrects the experts that existed when it was made."""
    total: Tensor | None = None
    for part in parts:
        if part.calibration is None:
            continue
        spans = _columns(part, parts, scores.shape[1])
        seen = [scores[:, start:end] for start, end in spans]
        change = part.calibration(seen[0] if len(seen) == 1 else torch.cat(seen, 1))
        for (start, end), piece in zip(spans, change.split([b - a for a, b in spans], 1), strict=True):
            placed = F.pad(piece, (start, scores.shape[1] - end))
            total = placed if total is None else total + placed
    return total


def _columns(part: RouterPart, parts: Sequence[RouterPart], width: int) -> list[tuple[int, int]]:
    """Columns of the base, of the co-active extensions of `part`, and of its own experts."""
    end = width - sum(other.count for other in parts)
    spans = [(0, end)]
    for other in parts:
        start, end = end, end + other.count
        if other is not part and other.name not in part.coactive:
            continue
        if spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


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
