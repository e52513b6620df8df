"""Forward passes that start above the lowest decoder layers, from hidden states that were kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from moextend.model import lm_head


class NotAbove(ValueError):
    """An LM cannot start above its lowest layers; the text says why."""


def decoder_layers(lm: Any) -> list[nn.Module]:
    """Layers of the decoder, lowest first; NotAbove if it has no list of them."""
    found = getattr(lm_head.decoder(lm), "layers", None)
    if not isinstance(found, nn.ModuleList):
        raise NotAbove("it has no list of decoder layers")
    return list(found)


@contextmanager
def caught(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Context that yields the output [B, T, ...] of a layer after a forward pass; NotAbove if it is no tensor."""
    states: list[Tensor] = []

    def catch(layer: nn.Module, args: Any, out: Any) -> None:
        if not isinstance(out, Tensor):
            raise NotAbove("its layers pass on more than one tensor")
        states.append(out.detach())

    hook = layer.register_forward_hook(catch)
    try:
        yield states
    finally:
        hook.remove()


@contextmanager
def handing_in(skipped: Sequence[nn.Module], states: Tensor) -> Iterator[None]:
    """Context in which the skipped layers compute nothing, and the last of them returns `states`."""

    def through(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states

    def given(*args: Any, **kwargs: Any) -> Tensor:
        return states

    before = [layer.__dict__.get("forward") for layer in skipped]
    for layer in skipped:
        layer.forward = given if layer is skipped[-1] else through
    try:
        yield
    finally:
        for layer, own in zip(skipped, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two results are equal up to rounding of sums in another order."""
    most = float(one.abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0, atol=1e-3 * most)
