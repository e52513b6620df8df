"""A device whose memory holds a limited number of rows: larger batches raise torch.OutOfMemoryError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Memory:
    """Notes the rows of every forward pass, and refuses those with more than `rows`."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.seen: list[int] = []

    def check(self, rows: int) -> None:
        self.seen.append(rows)
        if rows > self.rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows}.00 GiB.")


@contextmanager
def holding(module: nn.Module, rows: int, *, backward: bool = False) -> Iterator[Memory]:
    """Context in which `module` (with hidden states or ids as input) has memory for `rows` rows.

    backward: the memory is short in the backward pass, after the gradients of later layers.
    """
    memory = Memory(rows)

    def forward(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        given = (
            args[0]
            if args
            else next(
                kwargs[key]
                for key in ("input_ids", "inputs_embeds", "hidden_states")
                if kwargs.get(key) is not None
            )
        )
        if not backward:
            memory.check(len(given))
            return
        states = out[0] if isinstance(out, tuple) else out
        if states.requires_grad:
            states.register_hook(lambda gradient: memory.check(len(gradient)))

    hook = module.register_forward_hook(forward, with_kwargs=True)
    try:
        yield memory
    finally:
        hook.remove()
