"""Memory and operations of training and answering, estimated from shapes alone: nothing is loaded and nothing computed.

A model on device meta says everything: which parameters it has and in what number type, and which of them learn. See
`tracing` for how its passes are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from moextend.model.upcycling import parameter_counts
from moextend.moe.families import rows_of
from moextend.moe.sites import find_sites
from moextend.training.prepare import layers_of
from moextend.training.tracing import CACHE, OPERATIONS, Step, answer_pass, train_pass

STATE = 16
"""Bytes for each parameter that learns: its float32 weight, its gradient, and AdamW's two moments."""
GRADIENT = 4
"""Bytes of its gradient among them."""
OVERHEAD = 2e9
"""Bytes that a CUDA context, its libraries and the allocator's fragmentation are assumed to take."""


@dataclass(frozen=True)
class Training:
    """Bytes and operations of one forward and backward pass. See `tracing` for what is left out."""

    frozen: float
    """Bytes of the weights that do not learn."""
    learns: int
    """Parameters that learn."""
    working: float
    """Most bytes besides weights, gradients and optimizer: activations, copies, temporary tensors, logits."""
    operations: float
    """Floating-point operations, recomputation included."""

    @property
    def states(self) -> float:
        """Bytes of what learns, with gradients and optimizer."""
        return float(STATE * self.learns)

    @property
    def peak(self) -> float:
        """Bytes in all, without OVERHEAD."""
        return self.frozen + self.states + self.working


@dataclass(frozen=True)
class Answering:
    """Bytes and operations of answers to a batch of prompts: one cached forward pass, then one token at a time."""

    weights: float
    """Bytes of all weights."""
    working: float
    """Most bytes besides weights: activations, and keys and values of the prompts and answers."""
    cache_a_token: float
    """Bytes of keys and values per token."""
    a_token: float
    """Operations a token, attention included and the head left out."""
    a_call: float
    """Operations of a call whatever its number of tokens, such as adapters that are added to the weights."""
    head: float
    """Operations of the logits of one token."""

    @property
    def peak(self) -> float:
        """Bytes in all, without OVERHEAD."""
        return self.weights + self.working

    def operations(self, rows: float, length: float, new: float, batch: int) -> float:
        """Operations of `rows` answers of `new` tokens to prompts of `length` tokens, in batches of `batch`."""
        a_row = (length + new - 1) * self.a_token + new * self.head
        return rows * a_row + math.ceil(rows / batch) * new * self.a_call

    def forward(self, rows: float, length: float, logits: float = 0, batch: int = 1) -> float:
        """Operations of forward passes of `rows` conversations, with logits of some tokens of each."""
        return rows * (length * self.a_token + logits * self.head) + math.ceil(rows / batch) * self.a_call


def training(lm: Any, step: Step, *, inputs: bool = False) -> Training:
    """A pass in which those parameters of `lm` learn that require gradients; see `tracing.train_pass`.

    Raises:
        InputError: the model's forward pass depends on data, or is otherwise not traceable.
    """
    found = train_pass(lm, step, inputs=inputs)
    operations = found.pop(OPERATIONS)
    frozen = bytes_of(p for p in lm.parameters() if not p.requires_grad)
    learns = sum(p.numel() for p in lm.parameters() if p.requires_grad)
    working = max(found.values()) - (GRADIENT * learns if learns else 0)
    return Training(frozen, learns, max(0.0, working), operations)


def probe(lm: Any, step: Step) -> Training:
    """A pass that tunes all routers of `lm`, whose parameters require gradients afterwards."""
    rows = [rows_of(site.router) for site in find_sites(lm)]
    learn_only(lm, [weight for weight in rows if weight is not None])  # type: ignore[misc]
    return training(lm, step)


def answering(lm: Any, rows: int, length: int, new: int) -> Answering:
    """Answers of `new` tokens to `rows` prompts of `length` tokens.

    Raises:
        InputError: the model's forward pass depends on data, or is otherwise not traceable.
    """
    found, one = answer_pass(lm, rows, length), answer_pass(lm, rows, 1)
    head = 2.0 * _head_size(lm)
    full, single = (each.pop(OPERATIONS) - rows * head for each in (found, one))
    cache = found.pop(CACHE) / (rows * length)
    # Most of a pass grows with its tokens; attention grows faster, and adapters of stacked experts do not grow.
    a_call = (single - full / length) / (1 - 1 / length) if length > 1 else 0.0
    a_call = a_call if a_call > SLIGHT * single else 0.0
    return Answering(
        weights=bytes_of(lm.parameters()),
        working=max(found.values()) + 2 * cache * rows * new,
        cache_a_token=cache,
        a_token=(full - a_call) / (rows * length),
        a_call=a_call,
        head=head,
    )


SLIGHT = 0.02
"""Share of a one-token pass below which a fixed part of it is taken for a rounding of the attention's."""


def _head_size(lm: Any) -> int:
    table = lm.get_output_embeddings()
    weight = getattr(table, "weight", None)
    return 0 if weight is None else weight.numel()


@dataclass(frozen=True)
class Size:
    """Parameters of a model."""

    total: int
    active: int
    """Those that one token uses: of the base's experts its top-k."""
    largest_layer: float
    """Bytes of the largest layer, which FSDP gathers at a time."""


def size_of(lm: Any) -> Size:
    """Size of a base on device meta."""
    total, active = parameter_counts(lm)
    return Size(total, active, max((bytes_of(layer.parameters()) for layer in layers_of(lm)), default=0.0))


def bytes_of(tensors: Iterable[torch.Tensor]) -> float:
    """Bytes of tensors."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def learn_only(lm: Any, learning: Iterable[nn.Parameter]) -> None:
    """Makes exactly these parameters of `lm` require gradients."""
    wanted = {id(parameter) for parameter in learning}
    for parameter in lm.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def cast(lm: Any, dtype: torch.dtype) -> Any:
    """`lm` on device meta with its parameters in another number type."""
    for parameter in lm.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return lm
