"""Small index tensors that are the same in every forward pass, made once for each device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_HELD: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}


def held(values: Sequence[int], device: torch.device) -> Tensor:
    """`values` as a tensor [n] of int64 on `device`, the same one at each call: leave it as it is.

    Making one of host data waits for the device. They are known by their values, so that none is ever out of date.
    """
    if torch.compiler.is_compiling():  # a constant of the graph
        return torch.tensor(values, dtype=torch.int64, device=device)
    key = (tuple(values), device)
    found = _HELD.get(key)
    if found is None:
        with torch.inference_mode(False):  # the backward pass may need it
            found = torch.tensor(values, dtype=torch.int64, device=device)
        if type(found) is Tensor:  # not one of a simulated device
            _HELD[key] = found
    return found
