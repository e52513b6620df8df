"""Counts floating-point operations, including grouped matrix products and attention on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


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


@cache
def _formulas() -> dict[Any, Callable[..., int]]:
    """Operator -> cost function: torch's, and our own for operators without one."""
    found: dict[Any, Callable[..., int]] = dict(flop_registry)
    for library, name, formula in (
        ("aten", "_grouped_mm", _grouped),
        ("transformers", "grouped_mm_fallback", _grouped),
        ("aten", "_scaled_dot_product_flash_attention_for_cpu", _attention),
        ("aten", "_scaled_dot_product_flash_attention_for_cpu_backward", _attention_backward),
    ):
        operator = getattr(getattr(torch.ops, library), name, None)
        if operator is not None:
            found[operator] = formula
    return found


def _grouped(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """Each row of `a` is multiplied with one matrix of `b` (for a weight's gradient: columns with rows)."""
    return int(2 * a.shape[-2] * a.shape[-1] * b.shape[-1])


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return cast(int, sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return cast(
        int,
        sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape),
    )
