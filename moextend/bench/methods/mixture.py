"""Several LoRA experts and their router, added to one linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mixture(nn.Module):
    """``scale sum_e softmax(G x)_e B_e A_e x`` for x [..., inputs]; initially zero, as all B are zero."""

    def __init__(self, inputs: int, outputs: int, experts: int, rank: int, scale: float) -> None:
        super().__init__()
        self.router = nn.Linear(inputs, experts, bias=False)
        self.a = nn.Parameter(torch.empty(experts, rank, inputs).uniform_(-(inputs**-0.5), inputs**-0.5))
        self.b = nn.Parameter(torch.zeros(experts, outputs, rank))
        self.scale = scale
        self.strength = 1.0
        """0..1: factor on the term."""

    def forward(self, x: Tensor) -> Tensor:
        """Term [..., outputs] to add to the map's output."""
        gates = self.router(x.float()).softmax(-1)
        inner = torch.einsum("...i,eri->...er", x.float(), self.a) * gates.unsqueeze(-1)
        return torch.einsum("...er,eor->...o", inner, self.b).mul(self.scale * self.strength).to(x.dtype)
