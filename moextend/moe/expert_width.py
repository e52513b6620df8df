"""Narrow experts: which of its parent's inner neurons a new expert has, and where they stand in an expert's tensors.

Inner neuron n of an expert is a row of its gate, a row of its up projection and a column of its down projection.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from moextend.moe import quantised

STEP = 8
"""Widths are multiples of this: grouped matrix products want rows of whole 16 bytes."""


def inner_size(experts: nn.Module) -> int:
    """Inner neurons of one of these experts (I)."""
    return cast(Tensor, experts.down_proj).shape[1 if _transposed(experts) else 2]


def count(experts: nn.Module, width: float) -> int:
    """Neurons of an expert that has the share `width` of them, rounded up to a multiple of `STEP`."""
    full = inner_size(experts)
    return min(full, STEP * math.ceil(width * full / STEP))


def shape(experts: nn.Module, key: str, width: float) -> torch.Size:
    """The shape of one expert's part of the stack `key` at that width."""
    found = list(cast(Tensor, getattr(experts, key)).shape[1:])
    axis = _axis(experts, key)
    if axis is not None:
        found[axis] = found[axis] // inner_size(experts) * count(experts, width)
    return torch.Size(found)


def kept(experts: nn.Module, key: str, source: int, width: float) -> Tensor:
    """What of expert `source` in the stack `key` an expert of that width has: the neurons of largest output.

    These are the ones with the largest norm of their column in the down projection; they keep their order.
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
        else:  # gate and up take turns (gpt-oss)
            neurons = torch.stack([2 * neurons, 2 * neurons + 1], 1).flatten()
    return full.index_select(axis, neurons)


def _axis(experts: nn.Module, key: str) -> int | None:
    """Where one expert's part of the stack `key` counts inner neurons; None: it does not."""
    if key == "down_proj":
        return 0 if _transposed(experts) else 1
    if key in ("gate_up_proj", "up_proj"):
        return 1 if _transposed(experts) else 0
    return 0 if key in ("gate_up_proj_bias", "up_proj_bias") else None


def _transposed(experts: nn.Module) -> bool:
    """Whether matrices stand as [in, out] (gpt-oss, Llama 4) instead of [out, in]."""
    known = getattr(experts, "is_transposed", None)  # says transformers' decorator, where the class has it
    if known is not None:
        return bool(known)
    first = getattr(experts, "gate_up_proj", None)
    if first is None:
        first = experts.up_proj
    return cast(Tensor, first).shape[2] != cast(Tensor, experts.down_proj).shape[1]
