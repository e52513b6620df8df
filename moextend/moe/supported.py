"""Checks whether the set-up of a base can be extended and trained; unsupported ones are named (docs/gpu.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch

from moextend.errors import InputError
from moextend.util import lookup
from moextend.util.lookup import ATTENTION, DTYPES

_BITSANDBYTES = {"Params4bit", "Int8Params"}
_LAUNCHERS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
_AXES = {"TP": "tensor", "CP": "context", "SP": "sequence"}
_FSDP = {
    "FSDP_OFFLOAD_PARAMS": ("offloading of parameters", "Set fsdp_offload_params: false."),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "activation checkpointing by the launcher",
        "Set fsdp_activation_checkpointing: false, and gradient_checkpointing: true in the training settings.",
    ),
}
_TRUE = {"1", "true", "yes", "on", "y", "t"}


def check_setup(lm: Any, where: str) -> None:
    """Refuses a language model with bitsandbytes quantisation, sharding, several devices or hub kernels.

    Raises:
        InputError: what was found, and how to load the model instead.
    """
    for what, hint in _problems(lm):
        raise InputError(what, where=where, hint=hint)


def _problems(lm: Any) -> Iterator[tuple[str, str]]:
    from torch.distributed.tensor import DTensor  # takes as long to import as torch itself

    parameters = list(lm.parameters())
    if quantised_by_bitsandbytes(getattr(lm, "config", None)) or any(
        type(parameter).__name__ in _BITSANDBYTES for parameter in parameters
    ):
        yield _bitsandbytes()
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        yield (
            "the model's weights are sharded over processes (DTensor: tensor parallelism or FSDP).",
            "Load it unsharded, without distributed_config, tp_plan or device_mesh; "
            "'accelerate launch' with FSDP2 shards it in training (docs/training.md).",
        )
    devices = {str(device) for device in (getattr(lm, "hf_device_map", None) or {}).values()}
    dispatched = any(hasattr(module, "_hf_hook") for module in lm.modules())  # the map outlives the hooks
    if dispatched and (len(devices) > 1 or "disk" in devices):
        yield (
            f"the model is spread over devices by a device_map ({', '.join(sorted(devices))}).",
            "Load it on one device (moextend.load(..., device='cuda')), in bfloat16 where memory is short; extend it "
            "there, and dispatch it afterwards.",
        )
    if getattr(lm, "use_kernels", False) is True:
        yield (
            "the model's layers are replaced by hub kernels (use_kernels=True), which would hide an extension.",
            "Load it with use_kernels=False.",
        )


def quantised_by_bitsandbytes(config: Any) -> bool:
    """Whether a model's config (an object or the content of config.json) has bitsandbytes quantisation."""
    how = _field(config, "quantization_config")
    method = _field(how, "quant_method")
    named = str(getattr(method, "value", method)) == "bitsandbytes"
    return named or bool(_field(how, "load_in_4bit") or _field(how, "load_in_8bit"))


def _field(record: Any, key: str) -> Any:
    return record.get(key) if isinstance(record, Mapping) else getattr(record, key, None)


def refuse_bitsandbytes(config: Any, where: str) -> None:
    """Raises InputError if a model's config has bitsandbytes quantisation."""
    if quantised_by_bitsandbytes(config):
        what, hint = _bitsandbytes()
        raise InputError(what, where=where, hint=hint)


def _bitsandbytes() -> tuple[str, str]:
    return (
        "the model is quantised by bitsandbytes, which quantises the layers around the experts but not the experts.",
        "Load the checkpoint without quantisation, with dtype='bfloat16'.",
    )


def check_launcher() -> None:
    """Refuses settings of a launcher (its environment variables) that the training loop does not support.

    Raises:
        InputError: DeepSpeed, Megatron-LM, tensor, context or sequence parallelism, or an unsupported FSDP option.
    """
    for variable, name in _LAUNCHERS.items():
        if _on(variable):
            raise InputError(
                f"{name} is not supported.",
                where="accelerate config",
                hint="Use distributed_type: FSDP with fsdp_version: 2, or MULTI_GPU (docs/training.md).",
            )
    for axis, name in _AXES.items():
        if os.environ.get(f"PARALLELISM_CONFIG_{axis}_SIZE", "1") not in ("", "1"):
            raise InputError(
                f"{name} parallelism is not supported.",
                where="accelerate config: parallelism_config",
                hint=f"Leave out parallelism_config_{axis.lower()}_size; use FSDP2 or MULTI_GPU (docs/training.md).",
            )
    if _on("ACCELERATE_USE_FSDP"):
        for variable, (name, hint) in _FSDP.items():
            if _on(variable):
                raise InputError(
                    f"{name} is not supported.", where="accelerate config: fsdp_config", hint=hint
                )


def _on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in _TRUE


def check_device(device: str) -> None:
    """Raises InputError for a device name that torch does not know, or a device that is not available."""
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        wanted = torch.device("meta")
    if wanted.type not in ("cpu", "cuda", "mps", "xpu"):
        raise InputError(
            f"no device '{device}'.", where="device", hint="Devices: cpu, cuda, cuda:N, mps, xpu."
        )
    if wanted.type == "cpu" and not wanted.index:
        return
    here = torch.accelerator.current_accelerator(check_available=True)
    if here is None or here.type != wanted.type or (wanted.index or 0) >= torch.accelerator.device_count():
        found = f"{torch.accelerator.device_count()} of type {here.type}" if here else "none"
        raise InputError(
            f"there is no device '{device}' that torch can use (accelerators: {found}).",
            where="device",
            hint="Use device='cpu', or install a torch build and driver for the accelerator.",
        )


def check_options(dtype: str, device: str, attention: str | None) -> None:
    """Refuses invalid options of `load`.

    Raises:
        InputError: an unknown dtype, device or attention, a device that is not available, or flash attention on a
            CPU, in float32, or without its package.
    """
    lookup.choose("dtype", dtype, dict.fromkeys(DTYPES), where="dtype")
    if attention is not None:
        lookup.choose("attention", attention, dict.fromkeys(ATTENTION), where="attn_implementation")
    if attention == "flash_attention_2":
        if device.partition(":")[0] != "cuda":
            _no_flash(f"it runs on CUDA devices, not on '{device}'")
        if dtype in ("float32", "float64"):
            _no_flash(f"it computes in bfloat16 or float16, not in {dtype}", "dtype='bfloat16' or ")
        if find_spec("flash_attn") is None:
            _no_flash("its package is not installed", "pip install flash-attn --no-build-isolation, or ")
    check_device(device)


def _no_flash(why: str, way: str = "") -> None:
    raise InputError(
        f"flash_attention_2 cannot be used: {why}.",
        where="attn_implementation",
        hint=f"Use {way}attn_implementation='sdpa'."
        if not way.startswith("pip")
        else f"Run {way}use 'sdpa'.",
    )
