"""Checks of what a base is loaded with, and of a model before it is extended or trained (docs/gpu.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from moextend.errors import InputError
from moextend.moe import quantised, reach
from moextend.moe.families import family_of, rows_of, scoring_of
from moextend.moe.recipe import Mode
from moextend.moe.routing import ExtendedExperts
from moextend.moe.sites import Site, count_chosen, count_experts, find_sites
from moextend.util import lookup
from moextend.util.lookup import ATTENTION, DTYPES

_BITSANDBYTES = {"Params4bit", "Int8Params"}
_QUANTISED = (
    "the model is quantised by bitsandbytes in transformers, which leaves fused experts in full precision.",
    "Load a checkpoint without quantisation, and quantise it here: moextend.load(..., quantize='nf4').",
)


OLDEST = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe")
"""Model types that are tested with transformers 5.19, the newest that vLLM takes."""


def check_setup(lm: Any, where: str) -> None:
    """Refuses a language model with bitsandbytes quantisation, sharding, several devices or hub kernels.

    Raises:
        InputError: what was found, and how to load the model instead.
    """
    for what, hint in _problems(lm):
        raise InputError(what, where=where, hint=hint)


def _problems(lm: Any) -> Iterator[tuple[str, str]]:
    parameters = list(lm.parameters())
    kinds = {type(parameter).__name__ for parameter in parameters}
    if kinds & _BITSANDBYTES or _by_bitsandbytes(getattr(lm, "config", None)):
        yield _QUANTISED
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


def _by_bitsandbytes(config: Any) -> bool:
    """Whether a model's config (an object or the content of config.json) has bitsandbytes quantisation."""

    def value(record: Any, key: str) -> Any:
        return record.get(key) if isinstance(record, Mapping) else getattr(record, key, None)

    how = value(config, "quantization_config")
    method = value(how, "quant_method")
    named = str(getattr(method, "value", method)) == "bitsandbytes"
    return named or bool(value(how, "load_in_4bit") or value(how, "load_in_8bit"))


def refuse_bitsandbytes(config: Any, where: str) -> None:
    """Raises InputError if a model's config has bitsandbytes quantisation."""
    if _by_bitsandbytes(config):
        raise InputError(_QUANTISED[0], where=where, hint=_QUANTISED[1])


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
    count = torch.accelerator.device_count()
    if here is None or here.type != wanted.type or (wanted.index or 0) >= count:
        found = f"{count} of type {here.type}" if here else "none"
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
        why, hint = "", "Use attn_implementation='sdpa'."
        if device.partition(":")[0] != "cuda":
            why = f"it runs on CUDA devices, not on '{device}'"
        elif dtype in ("float32", "float64"):
            why = f"it computes in bfloat16 or float16, not in {dtype}"
            hint = "Use dtype='bfloat16' or attn_implementation='sdpa'."
        elif find_spec("flash_attn") is None:
            why = "its package is not installed"
            hint = "Run pip install flash-attn --no-build-isolation, or use 'sdpa'."
        if why:
            what = f"flash_attention_2 cannot be used: {why}."
            raise InputError(what, where="attn_implementation", hint=hint)
    check_device(device)


def check_plan(plan: object) -> None:
    """Raises InputError if `plan` is not a mapping from blocks to the experts to copy."""
    fits = isinstance(plan, Mapping) and all(
        hasattr(block, "__index__")
        and isinstance(experts, Sequence)
        and all(hasattr(e, "__index__") for e in experts)
        for block, experts in plan.items()
    )
    if not fits:
        hint = "Map MoE blocks to lists of experts: {0: [3], 2: [1]}."
        raise InputError(f"{plan!r} is not a plan.", where="plan", hint=hint)


def check_extensible(model: nn.Module) -> None:
    """Raises InputError if a block of `model` cannot be extended in any routing mode, for any plan."""
    check_setup(model, where="extend")
    for site in find_sites(model):
        _check_site(model, site)


def check_block(model: nn.Module, sites: list[Site], block: int, sources: Sequence[int], mode: Mode) -> None:
    """Raises InputError if block `block` cannot get copies of the experts `sources`."""
    what = ""
    if not 0 <= block < len(sites):
        what = f"the model has MoE blocks 0 to {len(sites) - 1}, not {block}."
    elif wrong := [source for source in sources if not 0 <= source < count_experts(sites[block])]:
        what = f"{sites[block].name} has experts 0 to {count_experts(sites[block]) - 1}, not {wrong[0]}."
    if what:
        raise InputError(what, where="plan", hint="Name one of them.")
    check_mode(sites[block], mode)
    _check_site(model, sites[block])


def check_mode(site: Site, mode: Mode) -> None:
    """Raises InputError if a block cannot be extended, or could not learn to route, in this mode."""
    if mode == "paper" and scoring_of(site.router).normalise and count_chosen(site) == 1:
        raise InputError(
            f"routing 'paper' learns nothing in the router of {site.name}: it chooses one expert for a token and sets "
            "its weight to 1, which has no gradient for rows and calibrations.",
            hint="Use routing 'exact' or 'slot', or a base without norm_topk_prob or with more experts for a token.",
        )
    if mode == "slot" and site.dense:
        raise InputError(
            f"routing 'slot' cannot extend {site.name}: every expert computes every token, so it has no slots.",
            hint="Use routing 'exact', which extends every family.",
        )


def _check_site(model: nn.Module, site: Site) -> None:
    """Raises InputError if a block in its current state cannot be extended in any routing mode."""
    if family_of(site.router).model not in OLDEST and _release(here := version("transformers")) < (5, 20):
        raise InputError(
            f"{type(site.router).__name__} needs transformers 5.20 or later, and this is {here}.",
            where=site.name,
            hint=f"Update it. The older one, which vLLM takes, is for {', '.join(OLDEST)}.",
        )
    if not isinstance(site.experts, ExtendedExperts) and getattr(site.experts, "_is_expert_parallel", False):
        raise InputError(
            f"{site.name} is split over devices by expert parallelism.",
            hint="Extend the model on one device, or with every device holding all experts.",
        )
    hooked = any(hasattr(module, "_hf_hook") for module in model.modules())
    for module in (site.experts, site.router):  # a model with only meta tensors is accepted
        offloaded = any(p.is_meta for p in module.parameters())
        if offloaded and (hooked or not all(p.is_meta for p in model.parameters())):
            raise InputError(
                f"weights of {site.name} ({type(module).__name__}) are offloaded, and cannot be copied.",
                hint="Load the full model on one device, without a device map that offloads; extend it there, and "
                "dispatch it afterwards.",
            )
    quantised.check_experts(model, site.experts, f"{site.name}.experts", count_experts(site))
    quantised.check_tensor(model, cast(Tensor, rows_of(site.router)), f"the router of {site.name}")
    reach.check_free(model, site)


def _release(version: str) -> tuple[int, ...]:
    """First two numbers of a version."""
    return tuple(map(int, version.split(".")[:2]))
