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

_INSTEAD = "Use distributed_type: FSDP with fsdp_version: 2, or MULTI_GPU (docs/training.md)."
_LEAVE = "Leave out parallelism_config_{}_size; use FSDP2 or MULTI_GPU (docs/training.md)."
_UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": ("DeepSpeed is", "", _INSTEAD),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM is", "", _INSTEAD),
    **{
        f"PARALLELISM_CONFIG_{axis}_SIZE": (
            f"{name} parallelism is", "parallelism_config", _LEAVE.format(axis.lower())
        )
        for axis, name in (("TP", "tensor"), ("CP", "context"), ("SP", "sequence"))
    },
    "FSDP_OFFLOAD_PARAMS": (
        "offloading of parameters is", "fsdp_config", "Set fsdp_offload_params: false."
    ),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "activation checkpointing by the launcher is", "fsdp_config",
        "Set fsdp_activation_checkpointing: false, and gradient_checkpointing: true in the training settings.",
    ),
}  # fmt: skip
"""Variable that a launcher sets -> what is not supported, its part of the config, and what to do."""


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
    dtype, message = model.lm.dtype, ""
    size = sum(p.numel() * p.element_size() for p in model.lm.parameters() if not p.requires_grad) / 1e9
    if settings.bf16 and model.device.type == "cpu" and lacks_bfloat16():
        message = (
            "bf16 is true, and this CPU has no instructions for bfloat16: a step takes about 20 times as long as in "
            "float32. Load the base with dtype='float32', and set bf16: false."
        )
    elif settings.bf16 and dtype == torch.float32:
        message = (
            f"bf16 is true, and the base is float32: its {size:.3g} GB of frozen weights would take half in bfloat16, "
            "and are cast for every product. Load it with dtype='auto' or 'bfloat16', or set bf16: false."
        )
    elif settings.bf16 and dtype == torch.float16:
        message = (
            "bf16 is true, and the base is float16: its weights are cast to bfloat16 for every product. "
            "Load it with dtype='bfloat16'."
        )
    elif not settings.bf16 and dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        message = (
            f"bf16 is false, and the base is {name}: the base still computes in {name}, and trained parameters are "
            "kept in float32. Set bf16: true, or load the base in float32 for float32 products."
        )
    if message:
        warnings.warn(message, PrecisionWarning, stacklevel=3)


def asks_to_shard() -> bool:
    """Whether the launcher's config sets FSDP; InputError for settings that the training loop does not support."""
    sharded, problem = parse_flag_from_env("ACCELERATE_USE_FSDP"), ("", "", "")
    for variable, (what, where, hint) in _UNSUPPORTED.items():
        if variable.startswith("PARALLELISM"):
            found = os.environ.get(variable, "1") not in ("", "1")
        else:
            found = parse_flag_from_env(variable) and (sharded or variable.startswith("ACCELERATE"))
        if found and not problem[0]:
            problem = f"{what} not supported.", where, hint
    other = os.environ.get("FSDP_VERSION") != "2" or parse_flag_from_env("FSDP_CPU_RAM_EFFICIENT_LOADING")
    if sharded and other and not problem[0]:
        what = "only FSDP2 without RAM-efficient loading is supported."
        problem = what, "fsdp_config", "Set fsdp_version: 2 and fsdp_cpu_ram_efficient_loading: false."
    if problem[0]:
        raise InputError(problem[0], where=f"accelerate config: {problem[1]}".rstrip(": "), hint=problem[2])
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
