"""Cache of small index tensors that are the same in every forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
