"""The new router rows and experts of an extension for one MoE block, copied from the base.

A narrow expert has some inner neurons of its parent. Inner neuron n is a row of the gate, a row of the up projection
and a column of the down projection.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.moe import guards, low_bits, quantised
from moextend.moe.dense_blocks import DenseBlock, DenseGroup
from moextend.moe.families import NEEDS_TWO_SLOTS, rows_of
from moextend.moe.recipe import Mode
from moextend.moe.router_parts import Calibration, RouterPart
from moextend.moe.routing import ExtendedExperts, ExtendedRouter, PairGroup
from moextend.moe.sites import Site, count_experts, first_new_id

STEP = 8
"""Widths are multiples of this: grouped matrix products need rows of a multiple of 16 bytes."""
_SUBCLASS: dict[tuple[type, type], type] = {}
_COUNTS = ("num_experts", "num_routed_experts", "total_experts")
"""Attributes of experts classes with the number of experts."""


class FloatGroup(nn.Module):
    """Mixin for new experts of an FP8 class: they compute in floating point, without codes and scales."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Output [T, H] of the experts for their slots."""
        from transformers.integrations.moe import grouped_mm_experts_forward

        return grouped_mm_experts_forward(self, hidden_states, top_k_index, top_k_weights)


MIXINS = (ExtendedRouter, ExtendedExperts, DenseBlock, DenseGroup, PairGroup, FloatGroup)


def base_class(module: nn.Module) -> type:
    """Class of a module of the base without extensions."""
    return next(kind for kind in type(module).__mro__ if not issubclass(kind, MIXINS))


def subclass(kind: type, mixin: type) -> type:
    """Class with the bases `mixin` and `kind`; cached."""
    return _SUBCLASS.setdefault(
        (kind, mixin), guards.Unpicklable(f"Extended{kind.__name__}", (mixin, kind), {})
    )


def starts_closed(experts: nn.Module, mode: Mode) -> bool:
    """Whether new experts start as full copies with closed gates, instead of zero last projections with open gates.

    With a norm after the last projection (Muse Spark) the first step away from zero would be amplified.
    """
    return mode == "exact" and bool(getattr(experts, "has_post_expert_norm", False))


def new_rows(site: Site, sources: list[int], mode: Mode, calibration: Calibration | None) -> RouterPart:
    """Router rows of the new experts.

    paper: the parents' rows (Eq. 9). exact: a gate that is initially open (1) or closed (0) for every token. slot: zero
    rows, so that a new expert initially ties with its parent.
    """
    router = site.router
    weight = cast(Tensor, rows_of(router)).detach()
    if mode == "paper":
        bias = getattr(router, "bias", None)
        start = None if bias is None else bias.detach()[sources].float()
        part = RouterPart(weight[sources].float(), start, calibration, sources)
    else:
        rows = torch.zeros(len(sources), weight.shape[1])
        start_at = 0.0 if mode == "slot" or starts_closed(site.experts, mode) else 1.0
        part = RouterPart(rows, torch.full((len(sources),), start_at), None, sources)
    return part.to(cast(Tensor, site.experts.down_proj).device)


def new_experts(site: Site, sources: list[int], mode: Mode, width: float, empty: bool) -> nn.Module:
    """A group of experts of the base's own class: copies of `sources` in float32, or uninitialised if `empty`.

    exact: the last projection is zero, unless `starts_closed`.
    """
    base = site.experts
    zero = mode == "exact" and not starts_closed(base, mode)
    group = _bare_group(site, len(sources))
    for key, tensor in low_bits.weights_of(base).items():
        if quantised.is_scale(key):
            continue
        if tensor is None or tensor.shape[0] not in (count_experts(site), first_new_id(site)):
            group._parameters[key] = tensor
            continue
        shape, copied = copy_shape(base, key, width), not (zero and key.startswith("down_proj"))
        copy = (torch.empty if empty else torch.zeros)((len(sources), *shape), device=tensor.device)
        for place, source in enumerate(sources if copied and not empty else ()):
            copy[place].copy_(kept(base, key, source, width))
        group._parameters[key] = nn.Parameter(copy)
    return group


def _bare_group(site: Site, count: int) -> nn.Module:
    """`count` experts of the base's class that share everything with it except the parameters."""
    base, kind = site.experts, low_bits.plain_class(base_class(site.experts))
    if site.dense:
        kind = subclass(kind, DenseGroup)
    if kind.__name__ in NEEDS_TWO_SLOTS:
        kind = subclass(kind, PairGroup)
    if any(quantised.scales_of(base, key) is not None for key in base._parameters):
        kind = subclass(kind, FloatGroup)
    group = cast(Any, object.__new__(kind))
    nn.Module.__init__(group)
    # Parameters, buffers, modules, hooks, and what is noted of quantised weights: never shared with the base.
    own = {*group.__dict__, "stored"}
    group.__dict__.update(
        {key: value for key, value in base.__dict__.items() if key not in own and not key.startswith("ext_")}
    )
    group.__dict__.pop("forward", None)
    for key, child in base._modules.items():
        if not key.startswith("ext_"):
            group._modules[key] = child  # activation and norms belong to the base: shared
    for key in _COUNTS:
        if hasattr(base, key):
            setattr(group, key, count)
    group.num_experts = count
    group._is_expert_parallel = False
    return cast(nn.Module, group)


def inner_size(experts: nn.Module) -> int:
    """Number I of inner neurons of one expert."""
    return cast(Tensor, experts.down_proj).shape[1 if _transposed(experts) else 2]


def inner_count(experts: nn.Module, width: float) -> int:
    """Number of inner neurons at the share `width`, rounded up to a multiple of `STEP`."""
    full = inner_size(experts)
    return min(full, STEP * math.ceil(width * full / STEP))


def copy_shape(experts: nn.Module, key: str, width: float) -> torch.Size:
    """Shape of one expert's part of the stacked tensor `key` at the share `width`."""
    found = list(cast(Tensor, getattr(experts, key)).shape[1:])
    axis = _axis(experts, key)
    if axis is not None:
        found[axis] = found[axis] // inner_size(experts) * inner_count(experts, width)
    return torch.Size(found)


def kept(experts: nn.Module, key: str, source: int, width: float) -> Tensor:
    """Part of expert `source` in the stacked tensor `key` that a new expert of that width copies.

    It has the neurons with the largest column norm in the down projection, in their original order.
    """
    full = quantised.matrix(experts, key, source)
    axis, wanted, inner = _axis(experts, key), inner_count(experts, width), inner_size(experts)
    if axis is None or wanted == inner:
        return full
    out = quantised.matrix(experts, "down_proj", source).float()
    norms = out.norm(dim=1 if _transposed(experts) else 0)
    neurons = norms.topk(wanted).indices.sort().values
    if full.shape[axis] == 2 * inner:
        if getattr(experts, "is_concatenated", True):
            neurons = torch.cat([neurons, inner + neurons])
        else:  # gate and up alternate (gpt-oss)
            neurons = torch.stack([2 * neurons, 2 * neurons + 1], 1).flatten()
    return full.index_select(axis, neurons)


def _axis(experts: nn.Module, key: str) -> int | None:
    """Axis of the inner neurons in one expert's part of the stacked tensor `key`; None: there is none."""
    if key == "down_proj":
        return 0 if _transposed(experts) else 1
    if key in ("gate_up_proj", "up_proj"):
        return 1 if _transposed(experts) else 0
    return 0 if key in ("gate_up_proj_bias", "up_proj_bias") else None


def _transposed(experts: Any) -> bool:
    """Whether matrices are [in, out] (gpt-oss, Llama 4) instead of [out, in]."""
    known = getattr(experts, "is_transposed", None)  # set by transformers' decorator, if the class has it
    if known is not None:
        return bool(known)
    first: Tensor = experts.gate_up_proj if hasattr(experts, "gate_up_proj") else experts.up_proj
    return bool(first.shape[2] != experts.down_proj.shape[1])
