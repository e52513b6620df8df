"""LoRA adapters of a stage: merged into the base, or written as an adapter that peft loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from moextend.bench.exporting.stage import StageModel
from moextend.bench.methods import adapters
from moextend.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import MultimodalLM

PREFIX = "base_model.model."
"""Start of the names in an adapter file of peft."""


def merge(model: MultimodalLM) -> list[str]:
    """Adds the active adapters to the weights and removes all adapters; returns the names of those added.

    The logits stay the same up to rounding. A model without adapters does not change.
    """
    outer = _outermost(model)
    names = active(model)
    for path, layer in outer.items():
        merged = _merged(layer, names)
        parent, _, leaf = path.rpartition(".")
        setattr(model.lm.get_submodule(parent), leaf, merged)
    if outer and hasattr(model.lm, "peft_config"):
        del model.lm.peft_config
    return names


def active(model: MultimodalLM) -> list[str]:
    """Names of the active adapters."""
    for layer in adapters.layers(model):
        return [] if layer.disable_adapters else list(layer.active_adapters)
    return []


def save_adapter(stage: StageModel, folder: Path, base: str) -> int:
    """Writes the active adapters of a stage as one adapter that `peft.PeftModel.from_pretrained` loads.

    Several adapters, which add up, become one with the sum of their ranks. Returns the rank.

    Args:
        folder: an empty folder.
        base: name of the base for the adapter's config.

    Raises:
        InputError: the stage has no LoRA adapters, or none of them is active for the task.
    """
    layers = adapters.named_layers(stage.model)
    if not layers:
        raise InputError(
            f"{type(stage.method).__name__} trains no LoRA adapters that peft supports.",
            where=stage.name,
            hint="Export with --as stock if the method trains weights of the base, or --as moextend for extensions.",
        )
    names = active(stage.model)
    if not names:
        raise InputError(
            f"no adapter is active for task '{stage.task}', so the base answers it.",
            where=stage.name,
            hint=f"Name a learned task with --task: {', '.join(stage.learned)}.",
        )
    tensors: dict[str, Tensor] = {}
    for path, layer in layers.items():
        a, b = _summed(layer, names)
        tensors[f"{PREFIX}{path}.lora_A.weight"], tensors[f"{PREFIX}{path}.lora_B.weight"] = a, b
    some: Any = next(iter(layers.values()))
    rank: int = sum(some.r[name] for name in names)
    settings = adapters.lora_config(stage.model, stage.method.config)
    settings.r, settings.lora_alpha = rank, some.scaling[names[0]] * rank
    settings.base_model_name_or_path, settings.task_type = base, "CAUSAL_LM"
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return rank


def _outermost(model: MultimodalLM) -> dict[str, Any]:
    """Adapted modules that are in no other one: one module may be wrapped once for each of its parameters."""
    found: dict[str, Any] = {}
    for name, module in adapters.named_layers(model).items():
        if not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def _merged(layer: Any, names: list[str]) -> Any:
    if hasattr(layer, "unload_and_optionally_merge_module"):  # wrappers of parameters
        return layer.unload_and_optionally_merge_module(
            merge=bool(names), safe_merge=False, adapter_names=names or None
        )
    if names:
        layer.merge(adapter_names=names)
    return layer.get_base_layer()


def _summed(layer: Any, names: list[str]) -> tuple[Tensor, Tensor]:
    """Matrices A [E r, in] and B [out, r E] of the sum of adapters; E: stacked experts, 1 for a linear map."""
    import torch

    experts = getattr(layer, "num_experts", 1)
    a = [layer.lora_A[name].weight.detach() for name in names]
    b = [layer.lora_B[name].weight.detach() for name in names]
    wide = torch.cat([each.view(experts, -1, each.shape[1]) for each in a], 1)
    tall = torch.cat([each.view(each.shape[0], -1, experts) for each in b], 1)
    return wide.flatten(0, 1).contiguous(), tall.flatten(1).contiguous()
