"""What one extension adds to one router, and where a module keeps the parts of its extensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn


class Calibration(nn.Module):
    """C of the official code: Linear(n, 16) -> GELU -> Linear(16, n), no biases, the last layer zero at the start."""

    def __init__(self, experts: int, hidden: int = 16) -> None:
        super().__init__()
        self.inner = nn.Linear(experts, hidden, bias=False)
        self.outer = nn.Linear(hidden, experts, bias=False)
        nn.init.normal_(self.inner.weight, std=0.02)
        nn.init.zeros_(self.outer.weight)

    def forward(self, weights: Tensor) -> Tensor:
        """Corrections [T, n] of the weights [T, n]."""
        return cast(Tensor, self.outer(F.gelu(self.inner(weights))))


class RouterPart(nn.Module):
    """What one extension adds to one router: a row a new expert, with a bias (exact, slot) or a calibration (paper).

    A row and bias of slot routing are those of the parent taken off.
    """

    def __init__(
        self,
        rows: Tensor,
        bias: Tensor | None,
        calibration: Calibration | None,
        parents: Sequence[int],
        name: str = "",
        coactive: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.name, self.coactive = name, tuple(coactive)
        """The extension, and the co-active ones: the calibration reads and corrects their experts too."""
        self.parents = tuple(parents)
        """The base experts that the new ones were copied from."""
        self.rows = nn.Parameter(rows)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.calibration = calibration

    @property
    def count(self) -> int:
        """Number of new experts."""
        return self.rows.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Logits [T, n] of the new experts for router inputs [T, H]."""
        return F.linear(x.to(self.rows.dtype), self.rows, self.bias)


class Parts(nn.ModuleDict):
    """Extension -> its part of one module. It takes any name without a dot, those of nn.Module's attributes too.

    A part is found by its key; as an attribute only where its name is not one of nn.ModuleDict's own.
    """

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a part, without the check that nn.Module has no attribute of that name."""
        cast(dict[str, Any], self._modules)[name] = module

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(
            self, name, value
        )  # `training` is an attribute, also beside an extension of that name
