"""LoRA on stacked experts (arXiv 2106.09685) in its factored form: x W + (x L) R instead of peft's x (W + L R).

In each pass peft adds the dense update of every expert to the stack, and the backward pass computes the dense gradient
of the stack. Here both factors are multiplied with the rows that are routed to an expert. Parameters, their names and
initial values are peft's; outputs and gradients equal those of peft up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from peft.tuners.lora import layer
from torch import Tensor
from torch.nn.functional import linear, pad

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Of stacks that are multiplied as they are. Codes of quantised stacks stay with peft's form."""
ALIGNED = 16
"""Bytes that a row of a grouped product is a multiple of."""
_PRODUCTS = (
    torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm,
    getattr(torch, "_grouped_mm", None), getattr(torch.ops.transformers, "grouped_mm_fallback", None),
)  # fmt: skip


class ParamWrapper(layer.ParamWrapper):  # peft knows it by this name
    """peft's adapter of one parameter of experts; in a pass they read a `Stack` instead of the parameter."""

    @contextmanager
    def _activate_lora(self, active_adapters: list[str]) -> Iterator[None]:
        base: Any = self.get_base_layer()
        weight = getattr(base, self.parameter_name)
        names = [name for name in active_adapters if name in self.lora_A]
        if not names or self.num_experts == 1 or weight.dtype not in DTYPES:
            with super()._activate_lora(active_adapters):
                yield
            return
        own = vars(base)  # found before the module's parameters
        own[self.parameter_name] = Stack(weight, [self._factors(name, weight.dtype) for name in names])
        try:
            yield
        finally:
            del own[self.parameter_name]

    def _factors(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """L [E, m, r] and R [E, r, n] of adapter `name` for a stack [E, m, n]; r is padded with zeros for alignment."""
        maps: tuple[Any, Any] = (self.lora_A[name], self.lora_B[name])
        down, up = (one.weight.to(dtype) for one in maps)
        down = down.unflatten(0, (self.num_experts, -1))  # [E, r, in]
        up = up.unflatten(1, (-1, self.num_experts)).permute(2, 0, 1) * self.scaling[name]  # [E, out, r]
        left, right = (up, down) if self._did_swap_in_out_features else (down.mT, up.mT)
        spare = -left.shape[-1] % (ALIGNED // left.element_size())
        return pad(left, (0, spare)).contiguous(), pad(right, (0, 0, 0, spare)).contiguous()


def factored(layers: Iterable[Any]) -> None:
    """Gives peft's wrappers of stacked experts among these layers the factored form."""
    for each in layers:
        if type(each) is layer.ParamWrapper:
            each.__class__ = ParamWrapper


class Stack:
    """Matrices W + sum of L R, which products do not add up: W [..., m, n], L [..., m, r], R [..., r, n].

    It is transposed and indexed like a tensor; any other use gets the sum.
    """

    def __init__(self, weight: Tensor, factors: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.weight, self.factors = weight, factors

    @cached_property
    def _matrices(self) -> list[tuple[Sequence[Tensor], Sequence[Tensor]]]:
        """The factors of each expert. The backward pass of an index would fill a stack of zeros for each expert."""
        return [(left.unbind(), right.unbind()) for left, right in self.factors]

    def __getitem__(self, index: Any) -> Stack:
        one = not getattr(index, "shape", ())  # of one expert
        index, factors = (int(index), self._matrices) if one else (index, self.factors)
        return Stack(self.weight[index], [(left[index], right[index]) for left, right in factors])

    def transpose(self, first: int, second: int) -> Any:
        """The transposed matrices."""
        dims = self.weight.dim()
        if {first % dims, second % dims} != {dims - 2, dims - 1}:
            return self.dense().transpose(first, second)
        return Stack(self.weight.mT, [(right.mT, left.mT) for left, right in self.factors])

    def dense(self) -> Tensor:
        """The sum."""
        return sum((left @ right for left, right in self.factors), self.weight)

    def __getattr__(self, name: str) -> Any:
        light = name in ("shape", "dtype", "device", "ndim", "dim", "size", "data_ptr")
        return getattr(self.weight if light else self.dense(), name)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """x (W + L R) as x W + (x L) R, and (W + L R) x as W x + L (R x)."""
        more = kwargs or {}
        match args:
            case (Tensor() as x, Stack() as own, *_) if func is linear:
                low = [linear(linear(x, right), left) for left, right in own.factors]
            case (Tensor() as x, Stack() as own) if func in _PRODUCTS:
                low = [func(func(x, left, **more), right, **more) for left, right in own.factors]
            case (Stack() as own, Tensor() as x) if func in _PRODUCTS:
                low = [func(left, func(right, x, **more), **more) for left, right in own.factors]
            case _:
                return func(*(_dense(arg) for arg in args), **{key: _dense(arg) for key, arg in more.items()})
        out = func(*(arg.weight if arg is own else arg for arg in args), **more)
        return sum(low, out)


def _dense(value: Any) -> Any:
    return value.dense() if isinstance(value, Stack) else value
