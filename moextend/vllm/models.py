"""Classes of vLLM's models whose MoE blocks have the extensions of an exported folder."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from vllm import ModelRegistry
from vllm.config import VllmConfig

from moextend.errors import InputError
from moextend.export.architectures import ARCHITECTURES, PREFIX
from moextend.export.served import Served, read_served
from moextend.extension import tensor_files
from moextend.extension.card import read_extension
from moextend.model import loading
from moextend.moe import attach
from moextend.moe.sites import find_sites
from moextend.vllm.blocks import Added, extend_block

LOADED = ("auto", "hf", "safetensors", "fastsafetensors", "runai_streamer")
"""Ways of vLLM to load weights in which `load_weights` is called with all of them."""


def __getattr__(name: str) -> type:
    if name.removeprefix(PREFIX) not in ARCHITECTURES:
        raise AttributeError(name)
    return _extended(name)


@cache
def _extended(name: str) -> type:
    """Subclass of vLLM's class of an architecture."""
    base: Any = ModelRegistry.models[name.removeprefix(PREFIX)].load_model_cls()

    class Extended(base):  # type: ignore[misc]
        """The base's class; blocks are extended after the weights are loaded."""

        def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
            self.ext_config = vllm_config
            _check(vllm_config)
            # Adapters carry the choice of a request and reach no expert, which keep their kernels without LoRA.
            lora, vllm_config.lora_config = vllm_config.lora_config, None
            try:
                super().__init__(vllm_config=vllm_config, prefix=prefix)
            finally:
                vllm_config.lora_config = lora

        def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Any:
            """Loads the base's weights, then the extensions of the folder."""
            loaded = super().load_weights(weights)
            extend(self, Path(self.ext_config.model_config.model))
            return loaded

    Extended.__name__ = Extended.__qualname__ = name
    Extended.__module__ = __name__
    return Extended


def _check(config: VllmConfig) -> None:
    """Raises InputError for settings of vLLM with which requests would not get what they ask for."""
    parallel, folder = config.parallel_config, str(config.model_config.model)
    if config.lora_config is None:
        raise InputError(
            "without LoRA a request cannot choose an extension.",
            where=folder,
            hint=f"Start vLLM in this folder, with --config vllm.yaml: cd {folder}.",
        )
    if config.load_config.load_format not in LOADED:
        raise InputError(
            "extensions are added to weights that are read from the folder.",
            where=f"--load-format {config.load_config.load_format}",
            hint="Leave the option out.",
        )
    if parallel.data_parallel_size > 1:
        raise InputError(
            "data parallelism inside vLLM is not supported.",
            where="--data-parallel-size",
            hint="Start several servers behind a load balancer.",
        )


def extend(model: nn.Module, folder: Path) -> None:
    """Gives the MoE blocks of a model of vLLM, in place, the extensions of an exported folder."""
    served = read_served(folder)
    lm, layers, some = _bare(folder, served), dict(model.named_modules()), next(model.parameters())
    lm.set_experts_implementation("eager" if some.device.type == "cpu" else "grouped_mm")
    for site in find_sites(lm):
        layer: Any = layers.get(site.name.rpartition(".")[0])
        if not hasattr(site.router, "ext_parts") or not hasattr(layer, "self_attn"):
            continue  # nothing is added, or the layer is one of another process
        block = next(child for child in layer.children() if hasattr(child, "experts"))
        groups = cast(Any, site.experts).ext_groups
        extend_block(block, Added(site.name, block, site.router, groups, layer.self_attn, served))


def _bare(folder: Path, served: Served) -> Any:
    """The base's language model without weights, with the extensions and their weights."""
    lm, tensors = loading.skeleton(str(folder)), dict[str, Tensor]()
    for name, place in served.extensions.items():
        card = read_extension(folder / place)
        plan = {int(block): parents for block, parents in card.plan.items()}
        attach.activate(lm, served.coactive[name])
        attach.attach(lm, name, plan, mode=card.mode, calibrate=card.calibrate, width=card.width, empty=True)
        for key, tensor in tensor_files.load_tensors(folder / place)[0].items():
            tensors[attach.renamed(key, card.name, name)] = tensor
    for key, tensor in tensors.items():
        module, _, last = key.rpartition(".")
        lm.get_submodule(module)._parameters[last] = nn.Parameter(tensor, requires_grad=False)
    return lm
