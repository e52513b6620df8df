"""Quantised weights of a base: dequantised to floating point, or refused by name.

FP8 codes are those of a checkpoint; weights in 4 or 8 bits are quantised when a base is loaded (low_bits.py).
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from moextend.errors import InputError
from moextend.moe import low_bits

SCALE = "_scale_inv"
"""Suffix of the block-wise scales of FP8 codes (transformers' FP8Experts)."""
_SIDE = (SCALE, "_activation_scale")


def is_scale(key: str) -> bool:
    """Whether a parameter of an experts class holds scales of another parameter."""
    return key.endswith(_SIDE)


def scales_of(experts: nn.Module, key: str) -> Tensor | None:
    """Scales [E, rows, columns] of the blocks of FP8 codes in the stacked tensor `key`; None if it has no codes."""
    codes = getattr(experts, key, None)
    if not isinstance(codes, Tensor) or not codes.is_floating_point() or codes.element_size() != 1:
        return None
    return cast("Tensor | None", getattr(experts, key + SCALE, None))


def matrix(experts: nn.Module, key: str, source: int) -> Tensor:
    """Expert `source` of the stacked tensor `key`, dequantised; FP8 codes are multiplied with their block scales."""
    stack = getattr(experts, key)
    if isinstance(stack, low_bits.Packed):
        return cast(Tensor, stack[source].dense())
    codes, scales = cast(Tensor, stack).detach()[source], scales_of(experts, key)
    if scales is None:
        return codes
    scale = scales.detach()[source].float()
    for axis, size in enumerate(codes.shape):
        block = _block(experts, axis, size, scale.shape[axis])
        scale = scale.repeat_interleave(block, axis).narrow(axis, 0, size)
    return codes.float() * scale


def _block(experts: nn.Module, axis: int, size: int, count: int) -> int:
    """Rows (or columns) per scale: the block size of the config, or an equal share if that does not fit."""
    wanted = cast(Any, getattr(experts, "block_size", None))
    if wanted is not None and -(-size // wanted[axis]) == count:
        return int(wanted[axis])
    return -(-size // count)


def check_experts(model: nn.Module, experts: nn.Module, name: str, count: int) -> None:
    """Raises InputError if weights that a new expert copies from `experts` cannot be read as floating point.

    Args:
        count: number of experts with weights.
    """
    for key, tensor in low_bits.weights_of(experts).items():
        if tensor is None or is_scale(key) or tensor.dim() == 0 or tensor.shape[0] != count:
            continue
        if isinstance(tensor, low_bits.Packed):
            continue
        scales = scales_of(experts, key)
        if scales is None or scales.dim() != 3 or scales.shape[0] != count:
            check_tensor(model, tensor, f"{name}.{key}")


def check_tensor(model: nn.Module, tensor: Tensor, name: str) -> None:
    """Raises InputError if `tensor` is not a plain floating-point tensor with two or more bytes per number."""
    plain = type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
    if plain and tensor.is_floating_point() and tensor.element_size() > 1:
        return
    kind = str(tensor.dtype).removeprefix("torch.") if plain else type(tensor).__name__
    raise refusal(f"{name} holds {kind}", method_of(model))


def refusal(what: str, method: str) -> InputError:
    """Error for weights with the quantisation `method`, which cannot be copied."""
    by = f" (quantisation '{method}')" if method else ""
    return InputError(
        f"{what}{by}: new experts cannot be copied from it.",
        hint="Load the base in bfloat16 or float32: with dequantize=True in its quantization_config where the method "
        "has that (Mxfp4Config, FineGrainedFP8Config), or from weights that are not quantised.",
    )


def refuse(model: nn.Module, what: str, where: str = "quantize") -> None:
    """Raises InputError if `model` was quantised when it was loaded, and `what` needs its full weights."""
    if method := low_bits.method_of(model):
        raise InputError(
            f"{what} needs full weights, and the base is quantised ({method}).",
            where=where,
            hint="Load the base without quantize.",
        )


def method_of(model: nn.Module) -> str:
    """Quantisation method in the model's config; "" if there is none."""
    found: Any = getattr(getattr(model, "config", None), "quantization_config", None)
    method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
    return str(getattr(method, "value", method) or "")
