"""Operations of a training: counted in a few batches, and interpolated for all others.

Grouped matrix products and attention on the CPU are counted too, which torch's own counter leaves out. A pass over B
rows of L tokens, padding included, costs a·B·L + c·B·L² operations: per position, a line over the length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

APART = 1.25
"""Factor by which a counted batch is longer or shorter than all before: at most 40 batches up to 8,192 tokens."""

HOOK = 2
"""Kind of the calls of a step hook in `CountedSteps`."""


class Counter(TorchDispatchMode):
    """Context that counts matrix products and attention; a multiply-add is two operations, elementwise work is none.

    Unlike torch's counter it does not decompose operators, so the results do not change in any bit.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        """Number of operations so far."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every operator."""
        out = func(*args, **(kwargs or {}))
        formula = _formulas().get(func.overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def _grouped(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """Each row of `a` is multiplied with one matrix of `b` (for a weight's gradient: columns with rows)."""
    return int(2 * a.shape[-2] * a.shape[-1] * b.shape[-1])


@cache
def _formulas() -> dict[Any, Callable[..., int]]:
    """Operator -> cost function: torch's, and our own for operators without one."""
    found: dict[Any, Callable[..., int]] = dict(flop_registry)
    for library, name, formula in (
        ("aten", "_grouped_mm", _grouped),
        ("transformers", "grouped_mm_fallback", _grouped),
        (
            "aten", "_scaled_dot_product_flash_attention_for_cpu",
            lambda q, k, v, *args, **more: sdpa_flop_count(q.shape, k.shape, v.shape),
        ),
        (
            "aten", "_scaled_dot_product_flash_attention_for_cpu_backward",
            lambda g, q, k, v, *args, **more: sdpa_backward_flop_count(g.shape, q.shape, k.shape, v.shape),
        ),
    ):  # fmt: skip
        operator = getattr(getattr(torch.ops, library), name, None)
        if operator is not None:
            found[operator] = formula
    return found


class CountedSteps:
    """Positions of all batches, and operations per position of the shortest and the longest counted batch of each kind.

    Two kinds of steps cost differently: full steps (False), and short ones that begin above the frozen layers (True).
    Calls of a step hook are a third kind (`HOOK`), each of one position.
    """

    def __init__(self) -> None:
        self._counted: list[dict[int, float]] = [{}, {}, {}]
        """For each kind: length of the shortest and the longest counted batch -> operations per position."""
        self._all = torch.zeros(3, 2, dtype=torch.int64)
        """For each kind: positions in all processes up to the last `gather`, and the sum of positions times length."""
        self._own = torch.zeros_like(self._all)
        """The same of this process since then."""

    def knows(self, kind: int, length: int) -> bool:
        """Whether the operations of such a step need not be counted any more."""
        known = self._counted[kind]
        return bool(known) and min(known) <= length * APART and length <= max(known) * APART

    def add(self, kind: int, rows: int, length: int, operations: int | None) -> None:
        """Adds a batch of rows of this length, padding included; `operations`: its operations if they were counted."""
        self._own[int(kind)] += torch.tensor([rows * length, rows * length**2])
        if operations is not None:
            known = {**self._counted[kind], length: operations / (rows * length)}
            self._counted[kind] = {each: known[each] for each in (min(known), max(known))}

    def gather(self, accelerator: Any) -> CountedSteps:
        """Takes over what the processes added since the last call; all processes call it."""
        self._all += accelerator.reduce(self._own.to(accelerator.device), "sum").cpu()
        self._own = torch.zeros_like(self._all)
        return self

    @property
    def total(self) -> float | None:
        """Operations of all batches up to the last `gather`; None: not known."""
        if not any(self._counted):
            return None
        full, short, hook = self._counted
        total = 0.0
        for known, (positions, weighted) in zip(
            (full or short, short or full, hook or {1: 0.0}), self._all.tolist(), strict=True
        ):
            constant, slope = _line(known)  # of the other kind, where only another process counted this one
            total += constant * positions + slope * weighted
        return total

    def state_dict(self) -> dict[str, Any]:
        """State at the last `gather`, for JSON."""
        return {"operations_per_position": self._counted, "sums": self._all.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state."""
        counted = state["operations_per_position"]
        self._counted = [{int(length): each for length, each in known.items()} for known in counted]
        self._all = torch.tensor(state["sums"])


def _line(known: Mapping[int, float]) -> tuple[float, float]:
    """Operations per position: a constant, and the part that grows with the length."""
    (short, low), (long, high) = min(known.items()), max(known.items())
    slope = (high - low) / (long - short) if long > short else 0.0
    return low - slope * short, slope
