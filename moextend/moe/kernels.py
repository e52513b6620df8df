"""How experts are computed: the dtype of their products, and a grouped kernel that needs no answer from the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

INTERFACES = ("grouped_mm", "batched_mm")
"""Implementations of experts in transformers that autocast does not reach, or reaches only after weights are copied."""


def working_dtype(h: Tensor) -> torch.dtype:
    """The dtype in which experts compute the hidden states `h`: that of autocast where it is on, else their own."""
    device = h.device.type
    if h.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return h.dtype


def run(group: nn.Module, h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """The output [T, H] of new experts for hidden states [T, H], in the working dtype of these.

    Their weights, which are kept in float32, are cast for the call.
    """
    dtype = working_dtype(h)
    cast_weights = {name: p.to(dtype) for name, p in _weights(group) if p.dtype != dtype}
    inputs = (h.to(dtype), index, weights)
    if not cast_weights:
        return cast(Tensor, group(*inputs))
    return cast(Tensor, functional_call(group, cast_weights, inputs))


def run_on_device(group: nn.Module, h: Tensor, shares: Tensor, chosen: Tensor | None = None) -> Tensor:
    """The sum [T, H] of the experts of a group, weighted with `shares` [T, n]; no shape depends on what was chosen.

    Args:
        chosen: which experts a token uses, [T, n]. The others have a share of zero; grouped_mm leaves them out, and
            other implementations compute them. None: all.
    """
    if implementation(group) == "grouped_mm" and not torch.compiler.is_compiling():
        return _grouped(group, h, shares, chosen)
    ids = torch.arange(shares.shape[1], device=h.device)
    return run(group, h, ids.expand(len(h), -1), shares)


def implementation(experts: nn.Module) -> str:
    """The implementation that a module of experts uses; eager for one that has no choice."""
    if not hasattr(experts, "has_gate"):  # not of transformers' interface
        return "eager"
    return cast(str, cast(Any, experts).config._experts_implementation or "eager")


def asks_device(experts: nn.Module, device: torch.device) -> bool:
    """Whether the slots of new experts are gathered by index, which asks the device for their number.

    That costs nothing on a CPU, and no more than the eager loop of transformers elsewhere. Compiled, what a graph
    looks like must not depend on it.
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

    As transformers computes it, with two differences: a group of one expert does not wait for the device (histc
    over a single bin reads the data's range), and what is left out comes from `chosen`, not from an id. Its rows
    lie behind the last offset, where the kernel leaves memory as it was: they are zeroed before and after it.
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
    if group.has_post_expert_norm:
        x = group.post_expert_norm(x)
    x = x * scale.unsqueeze(-1)
    if order is not None:
        x = x[torch.empty_like(order).scatter_(0, order, row)]
    return x.view(many, tokens, -1).sum(0).to(dtype)


class _InDtype:
    """Experts as an implementation of transformers sees them, with their weights in another dtype."""

    def __init__(self, experts: nn.Module, dtype: torch.dtype) -> None:
        self.experts, self.dtype = experts, dtype

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.experts, name)
        return value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _following(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`forward` of experts, with inputs and weights cast to the dtype of autocast where it is on."""

    def computed(experts: nn.Module, h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(h.device.type):
            return forward(experts, h, index, weights)
        dtype = working_dtype(h)
        return forward(_InDtype(experts, dtype), h.to(dtype), index, weights).to(h.dtype)

    return computed


@contextmanager
def experts_follow_autocast() -> Iterator[None]:
    """Within it, the experts of all models of transformers compute in the dtype of autocast where it is on.

    Autocast does not know grouped_mm, so that a float32 model computes its experts in float32 without this. Keep it
    open until the backward pass is done: checkpointed layers run their forward pass there again.
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
