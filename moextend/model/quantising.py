"""Quantises a base in 4 or 8 bits while it is loaded, expert by expert, or one that is in memory (moe/low_bits.py)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import (
    Chunk,
    Concatenate,
    ConversionOps,
    Interleave,
    MergeModulelist,
    Transpose,
    WeightConverter,
)
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from moextend.errors import InputError
from moextend.model import lm_head
from moextend.model.fingerprint import Rounded
from moextend.model.multimodal import MultimodalLM
from moextend.moe import low_bits
from moextend.moe.low_bits import Method, Stored
from moextend.moe.sites import count_experts, find_sites
from moextend.util import lookup

EXPERTS = "eager"
"""Implementation of experts of a quantised base: it reads one expert at a time."""
NARROWEST = 16
"""Outputs of a linear map that is quantised; those with fewer are gates."""
Place = tuple[nn.Module, str]
"""A module and the name of one of its weights."""


def check(method: str, dtype: str, where: str = "quantize") -> None:
    """Raises InputError for an unknown method, a missing package, or a number type that is not quantised."""
    lookup.choose("quantisation", method, dict.fromkeys(low_bits.METHODS), where=where)
    if dtype == "float64":
        what = "weights in float64 cannot be quantised."
        raise InputError(what, where=where, hint="Use dtype 'bfloat16' or 'float32'.")
    if find_spec("bitsandbytes") is None:
        what = "a base is quantised by the package bitsandbytes, which is not installed."
        raise InputError(what, where=where, hint="Run: pip install 'moextend[quantize]'")


def places(lm: Any) -> dict[str, Place]:
    """Name -> place of each weight that is quantised: stacks of experts, and linear maps of attention and of MLPs.

    Routers, gates, norms, embeddings, the head, biases and the indexers of sparse attention are not.

    Raises:
        InputError: the model has no MoE block that can be extended.
    """
    sites, inside = find_sites(lm), lm_head.prefix(lm)
    found: dict[str, Place] = {}
    for site in sites:
        for key, weight in site.experts._parameters.items():
            if weight is not None and weight.dim() == 3 and len(weight) == count_experts(site):
                found[f"{site.name}.experts.{key}"] = (site.experts, key)
    routers = {id(module) for site in sites for module in site.router.modules()}
    mlps = [name for name, module in lm.named_modules() if type(module).__name__.endswith("MLP")]
    around = [*lm_head.attention_blocks(lm), *(site.name for site in sites), *mlps]
    within = tuple(f"{name}." for name in around if name.startswith(inside))
    for name, module in lm.named_modules():
        if type(module) is not nn.Linear or module.out_features < NARROWEST or id(module) in routers:
            continue
        if name.startswith(within) and ".indexer." not in name and ".ext_" not in name:
            found[f"{name}.weight"] = (module, "weight")
    return found


def size(lm: Any, method: Method, dtype: torch.dtype) -> int:
    """Bytes of the weights of a language model, which may be on device meta, that is loaded with this quantisation."""
    shapes = {
        id(weight): weight.shape for module, key in places(lm).values() for weight in [getattr(module, key)]
    }
    return sum(
        low_bits.size_of(method, shapes[id(p)]) if id(p) in shapes else p.numel() * dtype.itemsize
        for p in lm.parameters()
    )


def quantise(model: MultimodalLM, method: Method) -> MultimodalLM:
    """Quantises the base of a model in place, weight by weight; returns it.

    Raises:
        InputError: as `check` and `places`; or the base is quantised or extended already.
    """
    check(method, model.base_dtype)
    lm = model.lm
    if low_bits.method_of(lm) or any(".ext_" in name for name, _ in lm.named_parameters()):
        raise InputError(
            "the base is quantised or extended already.", where="quantize", hint="Load it again."
        )
    for module, key in places(lm).values():
        writer = _Writer(module, key, method)
        writer.add(module._parameters[key].detach())  # type: ignore[union-attr]
    lm.config.quantization_config = Quantisation(method)
    lm.set_experts_implementation(EXPERTS)
    model.rename_base()
    return model


class _Writer:
    """Quantises one weight of a module, which may come matrix by matrix, and replaces it when it is complete."""

    def __init__(self, module: nn.Module, key: str, method: Method) -> None:
        weight: Any = module._parameters[key]
        self._place, self._method, self._shape, self._dtype = (
            (module, key),
            method,
            weight.shape,
            weight.dtype,
        )
        self._rounded, self._done = Rounded(), 0
        self._parts: dict[str, Tensor] = {}

    def add(self, weights: Tensor) -> bool:
        """Adds matrices [rows, columns] or [n, rows, columns]; returns whether these were the last ones."""
        for matrix in weights if weights.dim() == 3 else [weights]:
            weights_in_type = matrix.to(self._dtype)
            self._rounded.add(weights_in_type)
            for part, numbers in low_bits.encode(self._method, weights_in_type).items():
                self._part(part, matrix.device)[self._done].copy_(numbers)
            self._done += 1
        whole = self._done == (self._shape[0] if len(self._shape) == 3 else 1)
        if whole:
            stored = Stored(self._method, self._shape, self._dtype, self._rounded.digest)
            low_bits.put(*self._place, stored, self._parts)
        return whole

    def _part(self, part: str, device: torch.device) -> Tensor:
        if part not in self._parts:
            shape, dtype = low_bits.layout(self._method, self._shape)[part]
            self._parts[part] = torch.empty(shape, dtype=dtype, device=device)
        return self._parts[part]


METHOD = "moextend"
"""Name of the quantisation among those of transformers."""


@register_quantization_config(METHOD)
class Quantisation(QuantizationConfigMixin):
    """Argument `quantization_config` of `from_pretrained`."""

    def __init__(self, method: Method) -> None:
        self.quant_method, self.method = METHOD, method  # type: ignore[assignment]


@register_quantizer(METHOD)
class _Quantizer(HfQuantizer):
    """Replaces each weight of `places` when transformers has read it."""

    is_trainable = True

    def is_serializable(self) -> bool:
        return False

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        self.places, self.writers = places(model), dict[str, _Writer]()

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        return param_name in self.places

    def get_quantize_ops(self) -> ConversionOps:
        return _Quantise(self)

    def update_weight_conversions(self, weight_conversions: list[Any], model: Any = None) -> list[Any]:
        for converter in weight_conversions:
            if isinstance(converter, WeightConverter) and _is_per_expert(converter):
                converter.__class__ = _PerExpert
        return weight_conversions

    def write(self, name: str, weights: Tensor) -> None:
        """Quantises the next matrices of a weight."""
        method = self.quantization_config.method  # type: ignore[attr-defined]
        writer = self.writers.setdefault(name, _Writer(*self.places[name], method))
        if writer.add(weights):
            del self.writers[name]


class _Quantise(ConversionOps):
    """Quantises weights and puts them into the model, so that nothing is left to load."""

    def __init__(self, quantizer: _Quantizer) -> None:
        self.quantizer = quantizer

    def __deepcopy__(self, memo: Any) -> _Quantise:
        return self

    def convert(
        self, input_dict: dict[str, Any], *args: Any, missing_keys: set[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        left: dict[str, Any] = {}
        for name, given in input_dict.items():
            if name not in self.quantizer.places:
                left[name] = given
                continue
            self.quantizer.write(name, given[0] if isinstance(given, list) else given)
            (missing_keys or set()).discard(name)
        return left


def _is_per_expert(converter: WeightConverter) -> bool:
    """Whether a conversion merges the tensors of experts into stacks without mixing experts."""
    first, *rest = converter.operations
    return (
        isinstance(first, MergeModulelist)
        and first.dim == 0
        and all(
            (isinstance(op, Concatenate | Chunk | Interleave) and op.dim > 0)
            or (isinstance(op, Transpose) and op.dim0 > 0 and op.dim1 > 0)
            for op in rest
        )
    )


class _PerExpert(WeightConverter):
    """Conversion that reads, merges and quantises one expert after the other, so that one is in memory at a time."""

    __slots__ = ()

    def convert(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        given: Mapping[str, list[Any]] = dict(self.collected_tensors)
        counts = {len(tensors) for tensors in given.values()}
        if self.quantization_operation is None or len(counts) != 1:
            return dict(super().convert(*args, **kwargs))
        self.collected_tensors.clear()
        for place in range(counts.pop()):
            one = copy.copy(self)
            one.collected_tensors = {pattern: [tensors[place]] for pattern, tensors in given.items()}
            left = WeightConverter.convert(one, *args, **kwargs)
            assert not left, f"{next(iter(left))} is not quantised"
        return {}
