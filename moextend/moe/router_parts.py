"""The part of one extension in one router, the container of a module for the parts of its extensions, and which of
them count for each row of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moextend.errors import RunFailed


class Calibration(nn.Module):
    """C of the official code: Linear(n, 16) -> GELU -> Linear(16, n), without biases; the last layer starts at zero."""

    def __init__(self, experts: int, hidden: int = 16) -> None:
        super().__init__()
        self.inner = nn.Linear(experts, hidden, bias=False)
        self.outer = nn.Linear(hidden, experts, bias=False)
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
        name: str = "",
        coactive: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.name, self.coactive = name, tuple(coactive)
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


Choose = Callable[[Tensor, Sequence[Tensor], Sequence[Any]], Sequence[Tensor]]
"""(router inputs, output of the base's router, parts) -> weights and ids [T, k]."""


@dataclass(frozen=True)
class Rows:
    """The distinct sets of extensions in a batch, and the set of each row: rows that reach different extensions are
    computed together.

    The parts of all reached extensions compute as one batch, and each row counts only those of its own set. What a row
    gets does not depend on the extensions of its neighbours.
    """

    sets: tuple[tuple[str, ...], ...]
    of: Tensor
    """[B]: index of each row's set."""
    _closed: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def over(cls, rows: Sequence[tuple[str, ...]], device: torch.device) -> Rows:
        """Rows from the extensions of each of them."""
        sets = tuple(sorted(set(rows)))
        return cls(sets, torch.tensor([sets.index(row) for row in rows], device=device))

    def of_tokens(self, tokens: int) -> Tensor:
        """[T]: index of each token's set; the tokens of a row follow each other."""
        each, rest = divmod(tokens, len(self.of))
        if rest:
            raise RunFailed(
                f"a router gets {tokens} tokens of {len(self.of)} rows.",
                where="extensions per row",
                hint="This model family cannot compute rows of different extensions together.",
            )
        return self.of.repeat_interleave(each)

    def closed(self, tokens: int, parts: Sequence[Any]) -> Tensor:
        """[T, n]: whether a new expert of `parts` (routers' parts, in order) does not belong to a token's set."""
        key = (tokens, *((part.name, part.count) for part in parts))
        if key not in self._closed:  # layers of one pass have the same parts, mostly
            table = [[part.name not in names for part in parts for _ in part.parents] for names in self.sets]
            self._closed[key] = torch.tensor(table, device=self.of.device)[self.of_tokens(tokens)]
        return self._closed[key]

    def each(
        self, x: Tensor, out: Sequence[Tensor], parts: Sequence[Any], first: int, choose: Choose
    ) -> tuple[Tensor, Tensor]:
        """Weights and ids [T, k], where `choose` decides for the tokens of each set with the parts of this set.

        `first`: id of the first new expert. Tokens of a set without parts keep the base's decision.
        """
        weights, index = out[1].clone(), out[2].clone()
        place = self.of_tokens(len(x))
        for number, names in enumerate(self.sets):
            own = [part for part in parts if part.name in names]
            token = torch.where(place == number)[0]
            if not own or not len(token):
                continue
            found = choose(x[token], [each[token] for each in out[:3]], own)
            weights[token] = found[0].to(weights.dtype)
            index[token] = _ids(parts, own, first, index)[found[1]]
        return weights, index


def _ids(parts: Sequence[Any], own: Sequence[Any], first: int, index: Tensor) -> Tensor:
    """Id among the parts of one set -> id among all parts."""
    found, start = list(range(first)), first
    for part in parts:
        if part in own:
            found += range(start, start + part.count)
        start += part.count
    return torch.tensor(found, device=index.device, dtype=index.dtype)
