"""Finds the routers and the experts of a model.

A MoE block holds a router, ``router(h) -> (logits, weights [T, k], index [T, k])``, and experts with stacked 3-D
tensors, ``experts(h, index, weights)``. families.py describes the differences between families.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from moextend.errors import InputError
from moextend.moe import quantised
from moextend.moe.families import NOT_FUSED, rows_of
from moextend.moe.low_bits import Packed

STACKS = ("gate_up_proj", "up_proj")
"""Names of the first tensor of stacked experts, with a gate and without."""
ELSEWHERE = ("vision", "visual", "audio", "ext_")
"""Prefixes of modules that are skipped: MoE blocks outside the language model, and extensions."""
PACKED = {"Mxfp4GptOssExperts": "mxfp4"}
"""Experts classes that hold packed weights instead of tensors -> their quantisation."""


@dataclass(frozen=True)
class Site:
    """One MoE block: its place in the model, its router and its experts."""

    name: str
    layer: int
    """Position among the MoE blocks, lowest first."""
    router: nn.Module
    experts: nn.Module
    block: nn.Module
    """The module with both."""

    @property
    def dense(self) -> bool:
        """Whether every expert computes every token (Llama 4), not only the tokens routed to it."""
        return any(kind.__name__ == "Llama4TextMoe" for kind in type(self.block).__mro__)


def find_sites(model: nn.Module) -> list[Site]:
    """MoE blocks of a transformers model, lowest first; InputError for a model without one that can be extended."""
    sites: list[Site] = []
    refused: dict[str, str] = {}
    for name, module in model.named_modules():
        if any(part.startswith(ELSEWHERE) for part in name.split(".")):
            continue
        if type(module).__name__ in NOT_FUSED:
            refused[type(module).__name__] = NOT_FUSED[type(module).__name__]
        parts = parts_of(module)
        if parts is not None:
            sites.append(Site(name, len(sites), *parts, module))
    if not sites:
        for packed in {type(module).__name__ for module in model.modules()} & PACKED.keys():
            raise quantised.refusal(f"{packed} holds packed weights", PACKED[packed])
        why = f": {next(iter(refused.values()))}" if refused else ""
        raise InputError(
            f"{type(model).__name__} has no MoE block that can be extended{why}.",
            hint="Use a Mixture-of-Experts model of transformers 5, such as OLMoE, Mixtral or Qwen-MoE, "
            "or make one of a dense model: moextend upcycle --help.",
        )
    return sites


def parts_of(block: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """Router and experts of a MoE block; None for another module."""
    experts = getattr(block, "experts", None)
    stacks = [getattr(experts, name, None) for name in STACKS] if isinstance(experts, nn.Module) else []
    if not any(isinstance(stack, Tensor | Packed) and stack.dim() == 3 for stack in stacks):
        return None
    router = getattr(block, "gate", None) or getattr(block, "router", None)
    found = isinstance(router, nn.Module) and rows_of(router) is not None
    return (cast(nn.Module, router), cast(nn.Module, experts)) if found else None


def count_experts(site: Site) -> int:
    """Number m of the base's experts in this block that have weights and can be copied."""
    count: int = getattr(site.experts, "num_routed_experts", None) or site.experts.num_experts  # type: ignore[assignment]
    return count


def count_chosen(site: Site) -> int:
    """Number of the base's experts that one token uses in this block."""
    router = cast(Any, site.router)
    chosen: int = getattr(router, "top_k", None) or router.config.top_k_experts  # of Gemma 4
    return chosen


def first_new_id(site: Site) -> int:
    """Id of the first new expert: m, or more if some experts of the base have no weights (LongCat)."""
    return getattr(site.experts, "total_experts", None) or count_experts(site)
