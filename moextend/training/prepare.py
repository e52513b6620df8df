"""Contexts for a model in training: precision, gradient checkpointing, compilation, sharding."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from moextend.errors import InputError
from moextend.model.multimodal import MultimodalLM
from moextend.training.settings import Settings
from moextend.util.environment import lacks_bfloat16

_REFUSED = (
    "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "FSDP_OFFLOAD_PARAMS", "FSDP_ACTIVATION_CHECKPOINTING",
    "FSDP_CPU_RAM_EFFICIENT_LOADING",
)  # fmt: skip
_AXES = tuple(f"PARALLELISM_CONFIG_{axis}_SIZE" for axis in ("TP", "CP", "SP"))
"""Variables that a launcher sets for what the training loop does not support: switches, and sizes above 1."""


@contextmanager
def in_float32(model: MultimodalLM, bf16: bool) -> Iterator[None]:
    """Context in which trainable parameters are float32, because bfloat16 loses small updates."""
    narrow = {name: (p, p.dtype) for name, p in model.trainable().items() if p.dtype != torch.float32}
    if narrow and not bf16:
        name, (_, dtype) = next(iter(narrow.items()))
        raise InputError(
            f"'{name}' is trained, but is {dtype}, which loses small updates.",
            where="training settings",
            hint="Set bf16: true, or load the base in float32.",
        )
    for parameter, _ in narrow.values():
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in narrow.values():
            parameter.data = parameter.data.to(dtype)


class PrecisionWarning(UserWarning):
    """The base's dtype and the training settings are a poor combination; results are correct."""


def warn_of_precision(model: MultimodalLM, settings: Settings) -> None:
    """Warns if the base's dtype and `bf16` disagree, or the CPU is slow in bfloat16."""
    narrow, on_cpu = model.lm.dtype == torch.bfloat16, model.device.type == "cpu"
    message = ""
    if settings.bf16 and on_cpu and lacks_bfloat16():
        message = (
            "this CPU has no instructions for bfloat16: a step takes about 20 times as long as in float32"
        )
    elif settings.bf16 != narrow or model.lm.dtype == torch.float16:
        message = "weights are cast for every product" if settings.bf16 else "its products are of this type"
    if message:
        name = str(model.lm.dtype).removeprefix("torch.")
        said = f"bf16 is {str(settings.bf16).lower()}, and the base is {name}: {message}."
        hint = "Use bf16: true with a base in bfloat16 (dtype: auto), or float32 for both."
        warnings.warn(f"{said} {hint}", PrecisionWarning, stacklevel=3)


def asks_to_shard() -> bool:
    """Whether the launcher's config sets FSDP; InputError for settings that the training loop does not support."""
    sharded = parse_flag_from_env("ACCELERATE_USE_FSDP")
    wrong = [
        name for name in _REFUSED if parse_flag_from_env(name) and (sharded or name.startswith("ACCELERATE"))
    ]
    wrong += [name for name in _AXES if os.environ.get(name, "1") not in ("", "1")]
    wrong += ["FSDP_VERSION"] if sharded and os.environ.get("FSDP_VERSION") != "2" else []
    if wrong:
        raise InputError(
            f"{wrong[0]}={os.environ.get(wrong[0], '')} is not supported.",
            where="accelerate config",
            hint="Use distributed_type: FSDP with fsdp_version: 2, or MULTI_GPU (docs/training.md).",
        )
    return bool(sharded)


class Unsharded(nn.Module):
    """Wrapper with the interface of DistributedDataParallel, for a model that needs none."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **inputs: Any) -> Any:
        """Forward pass of the model."""
        return self.module(**inputs)


@contextmanager
def sharded(model: MultimodalLM, device: torch.device) -> Iterator[MultimodalLM]:
    """A second model with the same weights; FSDP2 shards the frozen ones over the processes, layer by layer.

    Both models share the trainable parameters, which stay unsharded on `device` in every process: they are small, extra
    losses read them outside the forward pass, and an expert may be idle in one process. `model` does not change, so
    load it into host memory.
    """
    home, learning = model.device, list(model.trainable().values())
    memo: dict[int, Any] = {id(p): p for p in learning}
    for parameter in model.parameters():
        memo.setdefault(id(parameter), nn.Parameter(parameter.data, requires_grad=False))
    sources = [modality.features for modality in model.modalities.values()]
    for kept in (model.tokenizer, model.choose, *sources):
        memo[id(kept)] = kept
    flag = os.environ["ACCELERATE_USE_FSDP"]
    try:
        for parameter in learning:
            parameter.data = parameter.data.to(device)
        twin = copy.deepcopy(model, memo)
        _shard_frozen(twin, device)
        os.environ["ACCELERATE_USE_FSDP"] = "false"  # it is done
        yield twin
    finally:
        os.environ["ACCELERATE_USE_FSDP"] = flag
        for parameter in learning:
            parameter.data = parameter.data.to(home)


def _shard_frozen(model: MultimodalLM, device: torch.device) -> None:
    # Features come from elsewhere.
    encoding = [p for modality in model.modalities.values() for p in modality.encoder_parameters()]
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),)),
        "ignored_params": {*model.trainable().values(), *encoding},
    }
    reshard = parse_flag_from_env("FSDP_RESHARD_AFTER_FORWARD", True)
    for layer in layers_of(model.lm):
        fully_shard(layer, reshard_after_forward=reshard, **options)
    fully_shard(model, **options)


def layers_of(lm: nn.Module) -> list[GradientCheckpointingLayer]:
    """The decoder's layers, lowest first."""
    return [module for module in lm.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def checkpointing(model: MultimodalLM) -> Iterator[None]:
    """Context with gradient checkpointing of the layers from the lowest trained one upwards.

    transformers' own option makes the embeddings require gradients, which extends the backward pass to the first layer.
    """
    layers: list[Any] = [*layers_of(model.lm)]
    if not layers:
        raise InputError(
            f"{type(model.lm).__name__} has no layers that can be checkpointed.",
            hint="Use gradient_checkpointing: false.",
        )
    first = lowest(model, layers)
    for layer in layers[first:]:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers[first:]:
            layer.gradient_checkpointing = False
            del layer._gradient_checkpointing_func


def lowest(model: MultimodalLM, layers: Sequence[nn.Module]) -> int:
    """Index of the lowest layer with a gradient of its output; 0 if parameters before all layers are trained."""
    projectors = [modality.projector for modality in model.modalities.values()]
    early = [model.lm.get_input_embeddings(), *projectors]
    if any(p.requires_grad for module in early for p in module.parameters()):
        return 0
    learning = (i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters()))
    return next(learning, len(layers))


@contextmanager
def compiled(model: MultimodalLM) -> Iterator[None]:
    """Context in which each decoder layer is compiled separately, in place."""
    layers = layers_of(model.lm)
    for layer in layers:
        layer.compile()
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
