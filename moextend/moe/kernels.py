"""How experts are computed: the dtype of their products, and what spares waits for the device: a grouped kernel, and
a cache of small index tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

INTERFACES = ("grouped_mm", "batched_mm")
"""Implementations of experts in transformers that ignore autocast, or follow it only after weights are copied."""


_HELD: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}


def held(values: Sequence[int], device: torch.device) -> Tensor:
    """`values` as an int64 tensor [n] on `device`; cached, so it must not be changed.

    A new tensor from host data would wait for the device. The key of the cache is the values, so no entry is stale.
    """
    if torch.compiler.is_compiling():  # a constant of the graph
        return torch.tensor(values, dtype=torch.int64, device=device)
    key = (tuple(values), device)
    found = _HELD.get(key)
    if found is None:
        with torch.inference_mode(False):  # the backward pass may need it
            found = torch.tensor(values, dtype=torch.int64, device=device)
        _HELD[key] = found
    return found


def working_dtype(h: Tensor) -> torch.dtype:
    """Dtype in which experts compute the hidden states `h`: that of autocast if it is on, else that of `h`."""
    device = h.device.type
    if h.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return h.dtype


def run(group: nn.Module, h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Output [T, H] of new experts for hidden states [T, H], in the working dtype.

    The float32 weights are cast for the call.
    """
    dtype = working_dtype(h)
    cast_weights = {name: p.to(dtype) for name, p in _weights(group) if p.dtype != dtype}
    inputs = (h.to(dtype), index, weights)
    if not cast_weights:
        return cast(Tensor, group(*inputs))
    return cast(Tensor, functional_call(group, cast_weights, inputs))


def run_on_device(group: nn.Module, h: Tensor, shares: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Sum [T, H] of the experts of a group, weighted with `shares` [T, n]; no shape depends on the choice.

    Args:
        chosen: [T, n]: which experts a token uses; the others have a share of zero. grouped_mm skips them, other
            implementations compute them. None: all.
    """
    if implementation(group) == "grouped_mm" and not torch.compiler.is_compiling():
        return _grouped(group, h, shares, chosen)
    ids = torch.arange(shares.shape[1], device=h.device)
    return run(group, h, ids.expand(len(h), -1), shares)


def implementation(experts: nn.Module) -> str:
    """Implementation that a module of experts uses; "eager" for a class with only one."""
    if not hasattr(experts, "has_gate"):  # not of transformers' interface
        return "eager"
    return cast(str, cast(Any, experts).config._experts_implementation or "eager")


def asks_device(experts: nn.Module, device: torch.device) -> bool:
    """Whether the slots of new experts are gathered by index, which synchronises with the device for their number.

    On a CPU this is free, and elsewhere it costs no more than the eager loop of transformers. In a compiled graph
    shapes must not depend on the choice.
    """
    if torch.compiler.is_compiling():
        return False
    return device.type == "cpu" or implementation(experts) == "eager"


def _weights(experts: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in experts._parameters.items():
        if parameter is not None and parameter.is_floating_point():
            yield name, parameter


def _grouped(group: Any, h: Tensor, shares: Tensor, chosen: Tensor | None) -> Tensor:
    """`run_on_device` with grouped_mm.

    It follows transformers, with two differences: a group of one expert does not wait for the device (histc with a
    single bin reads the data's range), and `chosen`, not an id, marks skipped rows. These come after the last offset,
    where the kernel does not write, so they are set to zero before and after it.
    """
    from transformers.integrations.moe import _grouped_linear

    dtype, (tokens, many) = working_dtype(h), shares.shape
    weight = {name: p.to(dtype) for name, p in _weights(group)}
    order = spare = None
    row = torch.arange(tokens * many, device=h.device)  # expert by expert
    scale = shares.t().reshape(-1)
    if chosen is None:
        ends = torch.arange(1, many + 1, device=h.device, dtype=torch.int32) * tokens
        x = h.to(dtype).repeat(many, 1)
    else:
        ends = chosen.sum(0).cumsum(0, dtype=torch.int32)
        spare, order = torch.sort(~chosen.t().reshape(-1), stable=True)
        spare, scale = spare.unsqueeze(-1), scale[order]
        x = h.to(dtype)[order % tokens].masked_fill_(spare, 0)

    def linear(x: Tensor, name: str) -> Tensor:
        bias = weight[f"{name}_bias"][(row if order is None else order) // tokens] if group.has_bias else None
        out = _grouped_linear(x, weight[name], ends, bias=bias, is_transposed=group.is_transposed)
        return out if spare is None else out.masked_fill(spare, 0)

    x = group._apply_gate(linear(x, "gate_up_proj")) if group.has_gate else group.act_fn(linear(x, "up_proj"))
    x = linear(x, "down_proj")
    if getattr(group, "has_post_expert_norm", False):  # transformers 5.19 has no such experts
        x = group.post_expert_norm(x)
    x = x * scale.unsqueeze(-1)
    if order is not None:
        x = x[torch.empty_like(order).scatter_(0, order, row)]
    return x.view(many, tokens, -1).sum(0).to(dtype)


class _InDtype:
    """View of experts with their weights in another dtype, for the implementations of transformers."""

    def __init__(self, experts: nn.Module, dtype: torch.dtype) -> None:
        self.experts, self.dtype = experts, dtype

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.experts, name)
        return value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _following(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`forward` of experts, with inputs and weights cast to the dtype of autocast if it is on."""

    def computed(experts: nn.Module, h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(h.device.type):
            return forward(experts, h, index, weights)
        dtype = working_dtype(h)
        return forward(_InDtype(experts, dtype), h.to(dtype), index, weights).to(h.dtype)

    return computed


@contextmanager
def experts_follow_autocast() -> Iterator[None]:
    """Context in which the experts of all transformers models follow autocast.

    Autocast does not handle grouped_mm, so a float32 model would compute its experts in float32. The backward pass
    must be inside the context too: checkpointed layers repeat their forward pass there.
    """
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    before = {name: ALL_EXPERTS_FUNCTIONS[name] for name in INTERFACES}
    for name, forward in before.items():
        ALL_EXPERTS_FUNCTIONS[name] = _following(forward)
    try:
        yield
    finally:
        for name, forward in before.items():
            ALL_EXPERTS_FUNCTIONS[name] = forward
