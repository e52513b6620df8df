"""Where the routers and the experts of a model are.

A MoE block holds a router, ``router(h) -> (logits, weights [T, k], index [T, k])``, and experts with fused 3-D
tensors, ``experts(h, index, weights)``. What differs between families is in families.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from moextend.errors import InputError
from moextend.moe import quantised
from moextend.moe.families import NOT_FUSED, rows_of

STACKS = ("gate_up_proj", "up_proj")
"""The first tensor of a stack of experts, with a gate and without."""
ELSEWHERE = ("vision", "visual", "audio", "ext_")
"""Parts of a model whose MoE blocks, if they have any, do not see the tokens of the language model; and extensions."""
PACKED = {"Mxfp4GptOssExperts": "mxfp4"}
"""Experts classes whose stacks are no tensors once they are loaded -> their quantisation."""


@dataclass(frozen=True)
class Site:
    """One MoE block: its place in the model, its router and its experts."""

    name: str
    layer: int
    """Position among the MoE blocks, lowest first."""
    router: nn.Module
    experts: nn.Module
    block: nn.Module
    """What holds both."""

    @property
    def dense(self) -> bool:
        """The experts compute every token (Llama 4) instead of those that chose them."""
        return any(kind.__name__ == "Llama4TextMoe" for kind in type(self.block).__mro__)


def find_sites(model: nn.Module) -> list[Site]:
    """The MoE blocks of a transformers model, lowest first; InputError for a model that has none."""
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
        packed = [type(m).__name__ for m in model.modules() if type(m).__name__ in PACKED]
        if packed:
            raise quantised.refusal(f"{packed[0]} holds packed weights", PACKED[packed[0]])
        why = f": {next(iter(refused.values()))}" if refused else ""
        raise InputError(
            f"{type(model).__name__} has no MoE block that can be extended{why}.",
            hint="Use a Mixture-of-Experts model of transformers 5, such as OLMoE, Mixtral or Qwen-MoE, "
            "or make one of a dense model: moextend upcycle --help.",
        )
    return sites


def parts_of(block: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The router and the experts of a MoE block; None for a module that is none."""
    experts = getattr(block, "experts", None)
    if not isinstance(experts, nn.Module) or not _is_fused(experts):
        return None
    router = getattr(block, "gate", None) or getattr(block, "router", None)
    return (router, experts) if isinstance(router, nn.Module) and rows_of(router) is not None else None


def _is_fused(experts: nn.Module) -> bool:
    stacked = (getattr(experts, name, None) for name in STACKS)
    return any(isinstance(tensor, Tensor) and tensor.dim() == 3 for tensor in stacked)


def count_experts(site: Site) -> int:
    """Number of experts of the base in this block that have weights (m), and so can be copied."""
    count: int = getattr(site.experts, "num_routed_experts", None) or site.experts.num_experts  # type: ignore[assignment]
    return count


def first_new_id(site: Site) -> int:
    """The id of the first new expert: m, and more where some experts of the base have no weights (LongCat)."""
    return getattr(site.experts, "total_experts", None) or count_experts(site)
