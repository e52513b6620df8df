"""How tokens reach new experts: the three routing modes, as in-place subclasses of a model's own routers and experts.

Notation (docs/method.md): a block has m experts, router rows W [m, H], top-k; x [T, H] are the router's inputs.

**exact** (default): the base's top-k is unchanged, and every new expert has an additional slot with a hard gate
``w = clamp(r x + b, 0, 1)``. The new expert's last projection starts at zero, so an extended model equals its base bit
for bit before training. A token with closed gates is computed exactly as in the base.

**paper** (MoExtend, arXiv 2408.03511, and its public code): softmax over old and new experts, top-k of it, and
calibrations that correct the chosen weights: ``w = (p + sum_t C_t(p))[idx]``, renormalised.

**slot**: the base's top-k is unchanged, and the children of an expert compete with it for its slot (competing.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moextend.moe import strengths
from moextend.moe.competing import paper_choice, slot_choice
from moextend.moe.families import EAGER_WITHOUT_SENTINEL, family_of, features, scoring_of
from moextend.moe.kernels import asks_device as asks_device
from moextend.moe.kernels import held, implementation, run, run_on_device
from moextend.moe.recipe import Mode
from moextend.moe.router_parts import RouterPart
from moextend.moe.scoring import Scoring


@dataclass
class Scope:
    """State that all blocks of one model share: the routing mode, the extensions, and which of them are active."""

    mode: Mode = "exact"
    active: tuple[str, ...] = ()
    """Names of the active extensions, oldest first."""
    strengths: dict[str, float] = field(default_factory=dict)
    """Extension -> strength, for those below 1, active or not (strengths.py)."""
    known: list[str] = field(default_factory=list)
    """Names of all attached extensions, oldest first."""
    coactive: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Extension -> its co-active extensions: those that were active when it was attached, oldest first."""
    widths: dict[str, float] = field(default_factory=dict)
    """Extension -> inner neurons of its experts as a share of their parents', 0..1."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Extension -> folder that it was saved to or loaded from."""
    titles: dict[str, str] = field(default_factory=dict)
    """Extension -> its name in its files, for those that were loaded under another name."""


class HardGate(torch.autograd.Function):
    """clamp(g, 0, 1) with a gradient that moves a gate outside 0..1 only back towards this range."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor) -> Tensor:
        """Value of the gate, 0..1."""
        ctx.save_for_backward(gate)
        return gate.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Gradient of the identity, without the part that moves the gate further out of 0..1."""
        (gate,) = ctx.saved_tensors
        outward = ((gate >= 1) & (gradient < 0)) | ((gate <= 0) & (gradient > 0))
        return gradient.masked_fill(outward, 0)


def hard_gate(gate: Tensor) -> Tensor:
    """clamp(g, 0, 1) with the gradient of HardGate."""
    if not (torch.is_grad_enabled() and gate.requires_grad):
        return gate.clamp(0, 1)
    return cast(Tensor, HardGate.apply(gate))  # type: ignore[no-untyped-call]


class ExtendedRouter(nn.Module):
    """Mixin for a router's class that adds the rows of new experts."""

    ext_scope: Scope
    ext_parts: nn.ModuleDict
    ext_first: int
    """Id of the first new expert."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Output of the base router, with weights and indices that include the active new experts."""
        out = super().forward(hidden_states, *args, **kwargs)
        parts = reachable(self)
        if not parts:
            return out
        x = features(self, hidden_states.reshape(-1, hidden_states.shape[-1]))
        with in_own_precision(x.device.type):  # a router decides in the precision of its rows
            if self.ext_scope.mode == "exact":
                return _exact(self, x, out, parts)
            given = (*args, *kwargs.values())
            weak = weakened(self)
            choice = _blended(self, x, out, weak, given) if weak else _choice(self, x, out, parts, given)
            return (out[0], *choice, *out[3:])


def in_own_precision(device: str) -> AbstractContextManager[object]:
    """Context without autocast."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _side_by_side(columns: list[Tensor]) -> Tensor:
    return columns[0] if len(columns) == 1 else torch.cat(columns, 1)


def reachable(module: nn.Module) -> list[Any]:
    """Parts (of a router) or groups (of experts) of the active extensions, oldest first."""
    own = module._modules  # a name that a module lacks is slow to look up
    parts = cast(nn.ModuleDict, own.get("ext_parts") or own.get("ext_groups") or {})
    scope = cast(Scope, module.ext_scope)
    return [parts[name] for name in scope.active if name in parts]


def weakened(module: nn.Module) -> dict[str, float]:
    """Strength of each active extension of a router or experts, oldest first; empty if all have full strength."""
    scope = cast(Scope, module.ext_scope)
    if not scope.strengths:
        return {}
    own = cast(Mapping[str, Any], module._modules.get("ext_parts") or module._modules.get("ext_groups") or {})
    found = {name: scope.strengths.get(name, 1.0) for name in scope.active if name in own}
    return found if any(strength < 1 for strength in found.values()) else {}


@contextmanager
def only(scope: Scope, names: Sequence[str]) -> Iterator[None]:
    """Context in which exactly these extensions compute, with full strength."""
    before = scope.active, scope.strengths
    scope.active, scope.strengths = tuple(names), {}
    try:
        yield
    finally:
        scope.active, scope.strengths = before


def _exact(router: ExtendedRouter, x: Tensor, out: Any, parts: list[RouterPart]) -> Any:
    logits, weights, index = out[:3]
    gates = hard_gate(_side_by_side([part(x) for part in parts]))
    if weak := weakened(router):
        each = gates.split([part.count for part in parts], 1)
        gates = _side_by_side([own * strength for own, strength in zip(each, weak.values(), strict=True)])
    first = router.ext_first
    new = torch.arange(first, first + gates.shape[1], device=index.device, dtype=index.dtype)
    return (
        logits,
        torch.cat([weights, gates.to(weights.dtype)], 1),
        torch.cat([index, new.expand(len(index), -1)], 1),
        *out[3:],
    )


def _choice(
    router: ExtendedRouter, x: Tensor, out: Any, parts: list[RouterPart], given: Sequence[Any]
) -> tuple[Tensor, Tensor]:
    """Weights and experts [T, k] with the new experts of `parts`; `given`: the router's other arguments."""
    if router.ext_scope.mode == "slot":
        return _slot(router, x, out, parts)
    return _paper(router, x, out, parts, scoring_of(router, given))


def _blended(
    router: ExtendedRouter, x: Tensor, out: Any, weak: Mapping[str, float], given: Sequence[Any]
) -> tuple[Tensor, Tensor]:
    """Weights and experts of the choices with each of the sets of `strengths.levels`, next to each other."""
    first, counts = router.ext_first, {name: cast(Any, router.ext_parts[name]).count for name in weak}
    ids, start = {}, first
    for name, count in counts.items():
        ids[name] = list(range(start, start + count))
        start += count
    weights, index = [], []
    for share, names in strengths.levels(weak):
        own, chosen = out[1], out[2]
        if names:
            parts = [cast(RouterPart, router.ext_parts[name]) for name in names]
            own, chosen = _choice(router, x, out, parts, given)
            places = [*range(first), *(place for name in names for place in ids[name]), start]
            chosen = held(places, chosen.device)[chosen.long()].to(chosen.dtype)  # among all active ones
        weights.append(own * share)
        index.append(chosen)
    return torch.cat(weights, 1), torch.cat(index, 1)


def _slot(router: ExtendedRouter, x: Tensor, out: Any, parts: list[RouterPart]) -> tuple[Tensor, Tensor]:
    leads = _side_by_side([part(x) for part in parts])
    parents = [parent for part in parts for parent in part.parents]
    learning = torch.is_grad_enabled()
    learns = [learning and part.rows.requires_grad for part in parts for _ in part.parents]
    return slot_choice(out[1], out[2], leads, parents, learns, router.ext_first)


def _paper(
    router: ExtendedRouter, x: Tensor, out: Any, parts: Sequence[RouterPart], how: Scoring
) -> tuple[Tensor, Tensor]:
    family = family_of(router)
    logits = out[0] if family.logits is None else family.logits(router, x)
    new = _side_by_side([part(x) for part in parts])
    if family.bend is not None:
        new = family.bend(router, new)
    parents = [parent for part in parts for parent in part.parents]
    index, weights = paper_choice(how, logits, new, out[1], out[2], parents, parts)
    return weights.to(out[1].dtype), index


class ExtendedExperts(nn.Module):
    """Mixin for an experts class that adds groups of new experts."""

    ext_scope: Scope
    ext_groups: nn.ModuleDict
    ext_first: int
    """Id of the first new expert."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Output [T, H] of the base's experts plus that of the active new experts."""
        groups = reachable(self)
        if not groups:
            return cast(Tensor, super().forward(hidden_states, top_k_index, top_k_weights))
        if self.ext_scope.mode == "exact":
            return self._with_groups(groups, hidden_states, top_k_index, top_k_weights)
        return self._among(groups, hidden_states, top_k_index, top_k_weights)

    def _with_groups(self, groups: list[Any], h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        new = sum(group.num_experts for group in groups)
        out = cast(Tensor, super().forward(h, index[:, :-new], weights[:, :-new]))
        return add_gated(out, groups, h, weights)

    def _among(self, groups: list[Any], h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Output of the base's experts for their slots plus that of the new experts for theirs.

        An id that no group has (slot routing: a child in training without a slot) adds nothing.
        """
        first = self.ext_first
        won = index >= first
        gathers = asks_device(self, h.device)
        if gathers and not bool(won.any()):
            out = cast(Tensor, super().forward(h, index, weights))
            return _linked(out, groups)
        out = cast(Tensor, super().forward(h, *self._without(won, index, weights)))
        for group in groups:
            add = add_gathered if gathers else add_columns
            out = add(out, group, h, index - first, weights)
            first += group.num_experts
        return out

    def _without(self, won: Tensor, index: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and weights for the base in which the slots of new experts add nothing.

        Implementations that skip the id m get that id. The others compute an expert from another slot of the token,
        with weight zero.
        """
        if skips_sentinel(self):
            return index.clamp(max=self.ext_first), weights
        spare = index.amin(-1, keepdim=True)
        spare = spare.masked_fill(spare >= self.ext_first, 0).expand_as(index)
        return torch.where(won, spare, index), weights.masked_fill(won, 0)


def skips_sentinel(experts: nn.Module) -> bool:
    """Whether the current implementation skips slots with the id m (the number of experts)."""
    if not any(kind.__name__ in EAGER_WITHOUT_SENTINEL for kind in type(experts).__mro__):
        return True
    return implementation(experts) != "eager"


class PairGroup(nn.Module):
    """Mixin for new experts of a class that fails for a single slot (LongCat): adds a slot with weight zero."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Output [T, H] of the class for its slots."""
        if top_k_index.shape[1] == 1:
            top_k_index = top_k_index.expand(-1, 2)
            top_k_weights = F.pad(top_k_weights, (0, 1))
        return cast(Tensor, super().forward(hidden_states, top_k_index, top_k_weights))


def add_gated(out: Tensor, groups: Sequence[Any], h: Tensor, weights: Tensor) -> Tensor:
    """`out` [T, H] plus all groups of new experts; their gates are the last columns of `weights`, in this order."""
    start = weights.shape[1] - sum(group.num_experts for group in groups)
    for group in groups:
        out = _add(out, group, h, weights[:, start : start + group.num_experts])
        start += group.num_experts
    return out


def _add(out: Tensor, group: Any, h: Tensor, gates: Tensor) -> Tensor:
    """`out` plus the gated new experts; tokens without an open gate do not change.

    In training every token is computed, because a closed gate needs the expert's output to open again.
    """
    if not asks_device(group, h.device):
        chosen = None if gates.requires_grad else gates > 0
        return out + run_on_device(group, h, gates, chosen).to(out.dtype)
    ids = torch.arange(group.num_experts, device=h.device)
    token = None if gates.requires_grad else torch.where((gates > 0).any(-1))[0]
    if token is None or len(token) == len(h):
        return out + run(group, h, ids.expand(len(h), -1), gates).to(out.dtype)
    if not len(token):
        return out
    part = run(group, h[token], ids.expand(len(token), -1), gates[token])
    return out.index_add(0, token, part.to(out.dtype))


def add_gathered(out: Tensor, group: Any, h: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """`out` plus a group's output, computed for its slots only; `ids` [T, k] count from its first expert."""
    token, slot = torch.where((ids >= 0) & (ids < group.num_experts))
    if not len(token):
        return _linked(out, [group])
    part = run(group, h[token], ids[token, slot].unsqueeze(-1), weights[token, slot].unsqueeze(-1))
    return out.index_add(0, token, part.to(out.dtype))


def add_columns(out: Tensor, group: Any, h: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Like `add_gathered`, with a column for each expert of the group, so that no shape depends on the choice."""
    own = torch.arange(group.num_experts, device=ids.device)
    chosen = ids.unsqueeze(-1) == own
    shares = (weights.unsqueeze(-1) * chosen).sum(1)
    return out + run_on_device(group, h, shares, chosen.any(1)).to(out.dtype)


def _linked(out: Tensor, groups: Sequence[Any]) -> Tensor:
    """`out`, connected to experts that computed nothing, so that they get gradients of zero.

    Without gradients an optimiser has no state for them, and data-parallel processes would reduce different sets.
    """
    if torch.is_grad_enabled():
        for group in groups:
            for parameter in group.parameters(recurse=False):
                if parameter.requires_grad:
                    out = out + (parameter.reshape(-1)[0] * 0).to(out.dtype)
    return out
