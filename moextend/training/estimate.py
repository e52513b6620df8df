"""Memory and operations of a training step, estimated from shapes alone: nothing is loaded and nothing is computed.

The model's own forward and backward pass runs once on tensors without data (torch's FakeTensorMode, on a "CPU"), with
the grouped experts and the fused attention of a GPU. What autograd keeps and what is multiplied is counted by layer.
New experts are added by a formula, since their routing depends on data. Not counted: temporary buffers of kernels, the
allocator's fragmentation, and what the device's context takes (`OVERHEAD`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from transformers import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from moextend.errors import InputError
from moextend.model import lm_head
from moextend.moe import expert_width
from moextend.moe.families import rows_of
from moextend.moe.sites import count_experts, find_sites
from moextend.training import flops

STATE = 16
"""Bytes for each parameter that learns: its float32 weight, its gradient, and AdamW's two moments."""
OVERHEAD = 2e9
"""Bytes that a CUDA context, its libraries and the allocator's fragmentation are assumed to take."""
PEAK = {"H100": 989e12}
"""Dense bfloat16 operations a second that a device's data sheet states (H100 SXM)."""
UTILISATION = 0.2
"""Share of a device's peak that a training is assumed to reach."""


@dataclass(frozen=True)
class Learns:
    """What a method trains: everything, new experts in `blocks`, or `parameters` beside a frozen base."""

    everything: bool = False
    blocks: Sequence[int] = ()
    """MoE blocks that get new experts (exact routing), lowest 0."""
    experts: int = 1
    """New experts a block."""
    width: float = 0.25
    """Share of an expert's inner neurons that a new one has."""
    parameters: int = 0
    """Of adapters in all layers; used where neither of the above is."""


@dataclass(frozen=True)
class Step:
    """One forward and backward pass."""

    rows: int
    """Conversations."""
    length: int
    """Tokens of a conversation, visual ones included."""
    labelled: int
    """Tokens of a conversation that are learned."""
    dtype: torch.dtype = torch.bfloat16
    """Of the base."""
    bf16: bool = True
    checkpointing: bool = False

    @property
    def size(self) -> int:
        """Bytes of a number that is computed."""
        return 2 if self.bf16 else self.dtype.itemsize

    @property
    def tokens(self) -> int:
        """Operations of the full pass."""
        return self.rows * self.length


@dataclass(frozen=True)
class Estimate:
    """Bytes and operations of one training step. See the module for what is left out."""

    parameters: int
    """Of the base."""
    trained: int
    weights: float
    """Bytes of what is frozen."""
    states: float
    """Bytes of what learns, with gradients and optimizer."""
    casts: float
    """Bytes of bfloat16 copies of float32 weights that are kept for the backward pass."""
    activations: float
    """Bytes that are kept for the backward pass, at most."""
    logits: float
    """Bytes of the logits at labelled positions, with their gradient."""
    operations: float
    """Floating-point operations of the pass, recomputation included."""

    @property
    def peak(self) -> float:
        """Bytes in all, without OVERHEAD."""
        return self.weights + self.states + self.casts + self.activations + self.logits

    def seconds(self, peak: float = PEAK["H100"], utilisation: float = UTILISATION) -> float:
        """Seconds a pass where a device of `peak` operations a second is used to that share."""
        return self.operations / (peak * utilisation)


@dataclass
class _Trace:
    """What a pass keeps and multiplies, by layer; -1 is what stands outside of all layers."""

    kept: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    forward: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0
    wide: int = 1
    """What is bfloat16 in the trace takes so many times its bytes."""
    hidden: float = 0.0
    """Bytes of the states between two layers."""


def estimate(lm: Any, step: Step, learns: Learns) -> Estimate:
    """Memory and operations of a step; `lm` (of `loading.skeleton`) is consumed.

    Raises:
        InputError: the model's forward pass depends on data, or is otherwise not traceable.
    """
    parameters = sum(p.numel() for p in lm.parameters())
    layers = [module for module in lm.modules() if isinstance(module, GradientCheckpointingLayer)]
    sites = find_sites(lm)
    owners = {id(part): i for i, layer in enumerate(layers) for part in layer.modules()}
    first = owners[id(sites[min(learns.blocks)].block)] if learns.blocks and not learns.everything else 0
    new = _new_experts(sites, learns)
    trained = parameters if learns.everything else sum(new) or learns.parameters
    with _tracing(lm):
        found = _traced(lm, layers, sites, step, learns)
    added = _kept_by_new(lm, sites, step, learns)
    upper = range(first, len(layers))
    each = max((found.kept[i] for i in upper), default=0.0) + max(added, default=0.0)
    if step.checkpointing:
        activations = found.hidden * len(upper) + each + found.kept[-1]
        again = sum(found.forward[i] for i in upper) + 2.0 * sum(new) * step.tokens
    else:
        activations, again = sum(found.kept.values()) + sum(added), 0.0
    vocabulary = lm.config.get_text_config().vocab_size
    return Estimate(
        parameters=parameters,
        trained=trained,
        weights=0.0 if learns.everything else float(parameters * step.dtype.itemsize),
        states=float(STATE * trained),
        casts=float(_casts(lm, layers[first:], step, learns)),
        activations=activations,
        logits=float(step.rows * step.labelled * vocabulary * (step.size + 8)),
        operations=found.total + again + 6.0 * sum(new) * step.tokens,
    )


@contextmanager
def _tracing(lm: Any) -> Iterator[None]:
    """Tells what goes wrong within it as one error."""
    try:
        yield
    except Exception as error:  # whatever a family does that fake tensors do not know
        first = next(iter(str(error).strip().splitlines()), "")
        raise InputError(
            f"cannot be estimated: {type(error).__name__} {first}", where=f"model {type(lm).__name__}"
        ) from error


def _new_experts(sites: Sequence[Any], learns: Learns) -> list[int]:
    """Parameters of the new experts, block by block, router rows included."""
    counts = []
    for block in () if learns.everything else learns.blocks:
        experts, many = sites[block].experts, count_experts(sites[block])
        one = sum(
            expert_width.shape(experts, key, learns.width).numel()
            for key, tensor in experts._parameters.items()
            if tensor is not None and tensor.shape[0] == many
        )
        counts.append(learns.experts * (one + cast(Tensor, rows_of(sites[block].router)).shape[-1] + 1))
    return counts


def _casts(lm: Any, layers: Sequence[nn.Module], step: Step, learns: Learns) -> int:
    """bfloat16 copies of what is float32: of all that learns, or of frozen layers that the backward pass reaches."""
    if not step.bf16 or (step.dtype != torch.float32 and not learns.everything):
        return 0
    if learns.everything:
        return int(2 * sum(p.numel() for p in lm.parameters()))
    sizes: list[int] = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    return 2 * (max(sizes, default=0) if step.checkpointing else sum(sizes))


def _kept_by_new(lm: Any, sites: Sequence[Any], step: Step, learns: Learns) -> list[float]:
    """Bytes that new experts keep, block by block, where their gates are open to every token, as at the start.

    For a token: its state, gate and up, the activated gate and their product, the output, and the router's states.
    """
    hidden = lm.config.get_text_config().hidden_size
    kept = []
    for block, parameters in zip(learns.blocks, _new_experts(sites, learns), strict=False):
        inner = expert_width.count(sites[block].experts, learns.width)
        token = learns.experts * step.size * (2 * hidden + 4 * inner) + 4 * hidden
        kept.append(float(step.tokens * token + (2 * parameters if step.bf16 else 0)))
    return kept


def _traced(lm: Any, layers: Sequence[nn.Module], sites: Sequence[Any], step: Step, learns: Learns) -> _Trace:
    found = _Trace(wide=step.size // 2)
    with FakeTensorMode():
        _without_data(lm)
        lm.requires_grad_(learns.everything).train()
        ids = torch.zeros(step.rows, step.length, dtype=torch.long)
        with torch.autocast("cpu", torch.bfloat16, enabled=step.bf16), flops.Counter() as count:
            with _learning(layers, sites, learns), _by_layer(lm, layers, found, count):
                out = lm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
                hidden = out.last_hidden_state
            found.hidden = float(hidden.numel() * step.size)
            chosen = hidden.reshape(-1, hidden.shape[-1])[: step.rows * step.labelled]
            loss = functional.cross_entropy(
                lm_head.logits(lm, chosen).float(), torch.zeros(len(chosen), dtype=torch.long)
            )
            loss.backward()
        found.total = float(count.total)
    return found


def _without_data(lm: Any) -> None:
    """Gives every tensor of a model on meta a shape on the pretended CPU; in bfloat16, which grouped products take."""
    for module in lm.modules():
        for key, old in module._parameters.items():
            if old is not None:
                module._parameters[key] = nn.Parameter(torch.empty(old.shape, dtype=torch.bfloat16))
        for key, kept in module._buffers.items():
            if kept is not None:
                module._buffers[key] = torch.empty(kept.shape, dtype=kept.dtype)
    lm.tie_weights()
    with suppress(ValueError):  # some families have experts of one kind alone
        lm.set_experts_implementation("grouped_mm")


@contextmanager
def _learning(layers: Sequence[nn.Module], sites: Sequence[Any], learns: Learns) -> Iterator[None]:
    """Where a frozen base meets the first thing that learns, its states need a gradient from there on."""
    if learns.everything:
        yield
        return

    def moved(states: Any) -> Any:
        if isinstance(states, tuple):
            return (moved(states[0]), *states[1:])
        return states + torch.zeros(states.shape[-1], dtype=states.dtype, requires_grad=True)

    if learns.blocks:
        handle = sites[min(learns.blocks)].block.register_forward_hook(lambda m, a, out: moved(out))
    else:
        handle = layers[0].register_forward_pre_hook(lambda m, args: (moved(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _by_layer(lm: Any, layers: Sequence[nn.Module], found: _Trace, count: flops.Counter) -> Iterator[None]:
    """Counts into `found` what autograd keeps and what is multiplied within the block, weights apart."""
    weights = {p.untyped_storage()._cdata for p in lm.parameters()}
    place, begun, seen = [-1], [0.0], set()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in seen:
            seen.add(storage._cdata)
            found.kept[place[0]] += storage.nbytes() * (found.wide if tensor.dtype == torch.bfloat16 else 1)
        return tensor  # alive, so that no other storage gets its address

    def enter(i: int) -> None:
        place[0], begun[0] = i, count.total

    def leave(i: int) -> None:
        found.forward[i] += count.total - begun[0]
        place[0] = -1

    handles = []
    for i, layer in enumerate(layers):
        handles.append(layer.register_forward_pre_hook(lambda m, a, i=i: enter(i), prepend=True))
        handles.append(layer.register_forward_hook(lambda m, a, out, i=i: leave(i)))
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def cache_a_token(lm: Any, dtype: torch.dtype) -> float:
    """Bytes of keys and values that one token leaves in the cache in answering; `lm` (of `skeleton`) is consumed.

    Raises:
        InputError: the model's forward pass is not traceable.
    """
    with _tracing(lm), FakeTensorMode():
        _without_data(lm)
        return dtype.itemsize * _numbers_a_token(lm)


def _numbers_a_token(lm: Any) -> float:
    cache: Any = DynamicCache(config=lm.config)
    ids = torch.zeros(1, 8, dtype=torch.long)
    renamed = "cache" in signature(lm.model.forward).parameters
    name = "cache" if renamed else "past_key_values"
    lm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **{name: cache})
    held = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return float(sum(tensor.numel() for tensor in held) / ids.numel())
