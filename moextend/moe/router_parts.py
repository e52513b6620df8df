"""The part of one extension in one router, and the container of a module for the parts of its extensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn


class Calibration(nn.Module):
    """C of the official code: Linear(n, 16) -> GELU -> Linear(16, n), without biases; the last layer starts at zero."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.inner = nn.Linear(experts, 16, bias=False)
        self.outer = nn.Linear(16, experts, bias=False)
        nn.init.normal_(self.inner.weight, std=0.02)
        nn.init.zeros_(self.outer.weight)

    def forward(self, weights: Tensor) -> Tensor:
        """Corrections [T, n] for weights [T, n]."""
        return cast(Tensor, self.outer(F.gelu(self.inner(weights))))


class RouterPart(nn.Module):
    """Part of one extension in one router: a row per new expert, with biases (exact, slot) or a calibration (paper).

    In slot routing rows and biases are relative to those of the parent.
    """

    def __init__(
        self,
        rows: Tensor,
        bias: Tensor | None,
        calibration: Calibration | None,
        parents: Sequence[int],
    ) -> None:
        super().__init__()
        self.name, self.coactive = "", tuple[str, ...]()
        """The extension, and its co-active extensions: the calibration reads and corrects their experts too."""
        self.parents = tuple(parents)
        """Base experts that the new ones were copied from."""
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
    """Extension -> its part of one module. A name may be that of an attribute of nn.Module, but have no dot.

    A part is found by its key, and as an attribute only if nn.ModuleDict has no attribute of that name.
    """

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a part without the check for an attribute of that name."""
        cast(dict[str, Any], self._modules)[name] = module

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(
            self, name, value
        )  # `training` stays an attribute, even with an extension of that name
