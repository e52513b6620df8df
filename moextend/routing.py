"""How tokens reach new experts: the two routing modes, as in-place subclasses of a model's own routers and experts.

Notation (docs/method.md): a block has m experts, router rows W [m, H], top-k; x [T, H] are the router's inputs.

**exact** (default): the base's top-k runs as it is, and every new expert stands in a slot of its own beside it with
a hard gate ``w = clamp(r x + b, 0, 1)``. The new expert's last projection starts at zero, so an extended model
equals its base bit for bit before training, and a token whose gates are closed is computed as the base computes it.

**paper** (MoExtend, arXiv 2408.03511, and its public code): the softmax runs over old and new experts, the top-k of
it are chosen, and calibrations correct the chosen weights: ``w = (p + sum_t C_t(p))[idx]``, renormalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moextend.moe import scoring_of

Mode = Literal["exact", "paper"]


@dataclass
class Scope:
    """What all blocks of one model share: the routing mode and which extensions may be reached now."""

    mode: Mode = "exact"
    active: tuple[str, ...] = ()
    """Names of the reachable extensions, oldest first."""
    known: list[str] = field(default_factory=list)
    """Names of all attached extensions, oldest first."""


class Calibration(nn.Module):
    """C of the official code: Linear(n, 16) -> GELU -> Linear(16, n), no biases, the last layer zero at the start."""

    def __init__(self, experts: int, hidden: int = 16) -> None:
        super().__init__()
        self.inner = nn.Linear(experts, hidden, bias=False)
        self.outer = nn.Linear(hidden, experts, bias=False)
        nn.init.normal_(self.inner.weight, std=0.02)
        nn.init.zeros_(self.outer.weight)

    def forward(self, weights: Tensor) -> Tensor:
        """Corrections [T, n] of the weights [T, n]."""
        return cast(Tensor, self.outer(F.gelu(self.inner(weights))))


class RouterPart(nn.Module):
    """What one extension adds to one router: a row a new expert, with a bias (exact) or a calibration (paper)."""

    def __init__(
        self, rows: Tensor, bias: Tensor | None, calibration: Calibration | None, parents: Sequence[int]
    ) -> None:
        super().__init__()
        self.parents = tuple(parents)
        """The base experts that the new ones were copied from."""
        self.rows = nn.Parameter(rows)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.calibration = calibration

    @property
    def count(self) -> int:
        """Number of new experts."""
        return self.rows.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Logits [T, n] of the new experts for router inputs [T, H]."""
        return F.linear(x.to(self.rows.dtype), self.rows, self.bias)


class HardGate(torch.autograd.Function):
    """clamp(g, 0, 1) whose gradient passes a closed or full gate only in the direction that brings it back."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor) -> Tensor:
        """The gate's value in 0..1."""
        ctx.save_for_backward(gate)
        return gate.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient of the identity, less what would push the gate further out of 0..1."""
        (gate,) = ctx.saved_tensors
        outward = ((gate >= 1) & (gradient < 0)) | ((gate <= 0) & (gradient > 0))
        return gradient.masked_fill(outward, 0)


def hard_gate(gate: Tensor) -> Tensor:
    """clamp(g, 0, 1), with the gradient of HardGate."""
    return cast(Tensor, HardGate.apply(gate))  # type: ignore[no-untyped-call]


class ExtendedRouter(nn.Module):
    """A router's own class with new rows beside it (mixed in front of that class)."""

    ext_scope: Scope
    ext_parts: nn.ModuleDict

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the base router returns, its weights and indices widened by the reachable new experts."""
        out = super().forward(hidden_states, *args, **kwargs)
        parts = reachable(self)
        if not parts:
            return out
        x = hidden_states.reshape(-1, hidden_states.shape[-1])
        route = _exact if self.ext_scope.mode == "exact" else _paper
        with torch.autocast(x.device.type, enabled=False):  # a router decides in the precision of its rows
            return route(self, x, out, parts)


def reachable(module: nn.Module) -> list[Any]:
    """The parts (of a router) or groups (of experts) of the active extensions, oldest first."""
    parts = cast(
        nn.ModuleDict, getattr(module, "ext_parts", None) or getattr(module, "ext_groups", None) or {}
    )
    scope = cast(Scope, module.ext_scope)
    return [parts[name] for name in scope.active if name in parts]


def _exact(router: ExtendedRouter, x: Tensor, out: Any, parts: list[RouterPart]) -> Any:
    logits, weights, index = out[:3]
    gates = hard_gate(torch.cat([part(x) for part in parts], 1))
    first = cast(Tensor, router.weight).shape[0]
    new = torch.arange(first, first + gates.shape[1], device=index.device, dtype=index.dtype)
    return (
        logits,
        torch.cat([weights, gates.to(weights.dtype)], 1),
        torch.cat([index, new.expand(len(index), -1)], 1),
        *out[3:],
    )


def _paper(router: ExtendedRouter, x: Tensor, out: Any, parts: list[RouterPart]) -> Any:
    logits, base_weights, base_index = out[:3]
    old = logits.shape[-1]
    new = torch.cat([part(x) for part in parts], 1)
    scores, share = merged_softmax(logits, new)
    index = torch.topk(scores, base_index.shape[1], dim=-1)[1]
    won = (index >= old).any(-1, keepdim=True)
    index = torch.where(won, index, base_index)  # the base's own decision, verbatim, where no new expert wins
    normalise = scoring_of(router).normalise
    chosen = scores.gather(1, index)
    total = chosen.sum(-1, keepdim=True) if normalise else torch.ones_like(share)
    kept = base_weights.to(scores.dtype) if normalise else base_weights.to(scores.dtype) * share
    weights = torch.where(won, chosen / total, kept)
    change = _calibrations(parts, scores)
    if change is not None:
        change = change.gather(1, index) / total
        weights = (weights + change).clamp_min(1e-6)
        if normalise:
            weights = weights / weights.sum(-1, keepdim=True)
    return (logits, weights.to(base_weights.dtype), index, *out[3:])


def merged_softmax(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over old and new logits together [T, m + n], and the old experts' share of it [T, 1].

    The old weights are the base's own softmax times that share, so that they are the base's to the last bit where
    the share is one.
    """
    old, new = old.float(), new.float()
    old_sum, new_sum = old.logsumexp(-1, keepdim=True), new.logsumexp(-1, keepdim=True)
    total = torch.logaddexp(old_sum, new_sum)
    share = (old_sum - total).exp()
    return torch.cat([old.softmax(-1) * share, (new - total).exp()], 1), share


def _calibrations(parts: list[RouterPart], scores: Tensor) -> Tensor | None:
    """The sum of all corrections [T, m + n]; each reads and writes the experts that existed at its time."""
    total: Tensor | None = None
    for part in parts:
        if part.calibration is None:
            continue
        width = part.calibration.inner.in_features
        change = F.pad(part.calibration(scores[:, :width]), (0, scores.shape[1] - width))
        total = change if total is None else total + change
    return total


class ExtendedExperts(nn.Module):
    """An experts class with groups of new experts beside it (mixed in front of that class)."""

    ext_scope: Scope
    ext_groups: nn.ModuleDict
    num_experts: int

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The base's output plus what the reachable new experts add."""
        groups = reachable(self)
        if not groups:
            return cast(Tensor, super().forward(hidden_states, top_k_index, top_k_weights))
        if self.ext_scope.mode == "exact":
            return self._beside(groups, hidden_states, top_k_index, top_k_weights)
        return self._among(groups, hidden_states, top_k_index, top_k_weights)

    def _beside(self, groups: list[Any], h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        new = sum(group.num_experts for group in groups)
        out = cast(Tensor, super().forward(h, index[:, :-new], weights[:, :-new]))
        start = index.shape[1] - new
        for group in groups:
            gates = weights[:, start : start + group.num_experts]
            out = _add(out, group, h, gates)
            start += group.num_experts
        return out

    def _among(self, groups: list[Any], h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Slots that a new expert won are sentinels (id m) to the base, whose rows then add nothing."""
        first = self.num_experts
        if not bool((index >= first).any()):
            return cast(Tensor, super().forward(h, index, weights))
        out = cast(Tensor, super().forward(h, index.clamp(max=first), weights))
        for group in groups:
            token, slot = torch.where((index >= first) & (index < first + group.num_experts))
            if len(token):
                part = group(
                    h[token].to(group.down_proj.dtype),
                    (index[token, slot] - first).unsqueeze(-1),
                    weights[token, slot].unsqueeze(-1),
                )
                out = out.index_add(0, token, part.to(out.dtype))
            first += group.num_experts
        return out


def _add(out: Tensor, group: Any, h: Tensor, gates: Tensor) -> Tensor:
    """`out` plus the gated new experts; tokens whose gates are all closed are left as they are.

    While the gates learn every token is computed, since a closed gate needs the expert's output to open again.
    """
    width = group.down_proj.dtype
    ids = torch.arange(group.num_experts, device=h.device)
    if gates.requires_grad:
        part = group(h.to(width), ids.expand(len(h), -1), gates)
        return out + cast(Tensor, part).to(out.dtype)
    token = torch.where((gates > 0).any(-1))[0]
    if not len(token):
        return out
    part = group(h[token].to(width), ids.expand(len(token), -1), gates[token])
    return out.index_add(0, token, part.to(out.dtype))
