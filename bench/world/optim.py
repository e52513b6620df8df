"""Optimizers of the build: AdamW for vectors and embeddings, orthogonalised momentum (Muon) for matrices.

With AdamW alone the model learns copying late; with Muon it learns all skills within a few hundred steps.
`torch.optim.Muon` takes 2-D weights only, but the experts of a layer are one stacked 3-D weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz iteration of Muon (Jordan et al., 2024)."""


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Approximation of the nearest (semi-)orthogonal matrix, for one matrix or a stack."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    x: Tensor = matrix.mT if tall else matrix
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class OrthogonalMomentum(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for 2-D weights and stacks of them."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every weight by an orthogonal matrix times the learning rate."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                mean = state.setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalised(weight.grad.lerp(mean, group["momentum"]))
                scale = max(1.0, weight.shape[-2] / weight.shape[-1]) ** 0.5
                weight.add_(update, alpha=-group["lr"] * scale)


class Optimizers:
    """Both optimizers of a model, with the same cosine schedule with warm-up."""

    def __init__(
        self, model: nn.Module, steps: int, is_matrix: Callable[[str, Tensor], bool], adam: float, muon: float
    ) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if is_matrix(name, p)]
        rest = [p for name, p in named if not is_matrix(name, p)]
        self.model, self.steps, self.done = model, steps, 0
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=adam, weight_decay=0.01, betas=(0.9, 0.98)),
            OrthogonalMomentum(matrices, lr=muon),
        ]
        self.rates = (adam, muon)

    def step(self, loss: Tensor) -> None:
        """One step, with the gradient norm clipped at 1."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for part, rate in zip(self.parts, self.rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * schedule(self.done, self.steps)
            part.step()
        self.done += 1


def schedule(step: int, steps: int, warmup: float = 0.05) -> float:
    """Factor on the learning rate at a step: linear warm-up, then cosine to zero."""
    rise = max(1, int(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
