"""Counts floating point operations, grouped matrix products and CPU attention included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape = torch.Size


def counter() -> FlopCounterMode:
    """A context in which matrix products and attention are counted; a multiply-add is two operations.

    ``get_total_flops()`` of it gives the sum. Elementwise work is not counted.
    """
    return FlopCounterMode(display=False, custom_mapping=_formulas())


def _formulas() -> dict[Any, Callable[..., int]]:
    """What torch has no formula for: operator -> its cost from the shapes of its arguments."""
    found: dict[Any, Callable[..., int]] = {}
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


def _grouped(a: Shape, b: Shape, *args: Any, **kwargs: Any) -> int:
    """Rows of `a` each meet one matrix of `b` (or, for a weight's gradient, columns meet rows)."""
    return 2 * a[-2] * a[-1] * b[-1]


def _attention(query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
    return cast(int, sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any
) -> int:
    return cast(int, sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]
