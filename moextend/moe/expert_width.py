"""Narrow experts: which inner neurons of its parent a new expert has, and their position in an expert's tensors.

Inner neuron n of an expert is a row of its gate, a row of its up projection and a column of its down projection.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from moextend.moe import quantised

STEP = 8
"""Widths are multiples of this: grouped matrix products need rows of a multiple of 16 bytes."""


def inner_size(experts: nn.Module) -> int:
    """Number I of inner neurons of one expert."""
    return cast(Tensor, experts.down_proj).shape[1 if _transposed(experts) else 2]


def count(experts: nn.Module, width: float) -> int:
    """Number of inner neurons at the share `width`, rounded up to a multiple of `STEP`."""
    full = inner_size(experts)
    return min(full, STEP * math.ceil(width * full / STEP))


def shape(experts: nn.Module, key: str, width: float) -> torch.Size:
    """Shape of one expert's part of the stacked tensor `key` at the share `width`."""
    found = list(cast(Tensor, getattr(experts, key)).shape[1:])
    axis = _axis(experts, key)
    if axis is not None:
        found[axis] = found[axis] // inner_size(experts) * count(experts, width)
    return torch.Size(found)


def kept(experts: nn.Module, key: str, source: int, width: float) -> Tensor:
    """Part of expert `source` in the stacked tensor `key` that a new expert of that width copies.

    It has the neurons with the largest column norm in the down projection, in their original order.
    """
    full = quantised.matrix(experts, key, source)
    axis, wanted, inner = _axis(experts, key), count(experts, width), inner_size(experts)
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


def _transposed(experts: nn.Module) -> bool:
    """Whether matrices are [in, out] (gpt-oss, Llama 4) instead of [out, in]."""
    known = getattr(experts, "is_transposed", None)  # set by transformers' decorator, if the class has it
    if known is not None:
        return bool(known)
    first = getattr(experts, "gate_up_proj", None)
    if first is None:
        first = experts.up_proj
    return cast(Tensor, first).shape[2] != cast(Tensor, experts.down_proj).shape[1]
