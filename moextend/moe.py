"""MoE families of transformers: where their routers and experts are, and how their routers score.

A MoE block holds a router, ``router(h) -> (logits, weights [T, k], index [T, k])``, and experts with fused 3-D
tensors, ``experts(h, index, weights)``. `exact` routing needs nothing else. `paper` routing must repeat the
router's own scoring over more experts, and the table below says how each family scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from moextend.errors import InputError


@dataclass(frozen=True)
class Site:
    """One MoE block: its place in the model, its router and its experts."""

    name: str
    layer: int
    """Position among the MoE blocks, lowest first."""
    router: nn.Module
    experts: nn.Module


@dataclass(frozen=True)
class Scoring:
    """How a router turns logits into weights."""

    normalise: bool
    """The k chosen weights are made to sum to one."""


def _always(router: nn.Module) -> Scoring:
    return Scoring(normalise=True)


def _by_flag(router: nn.Module) -> Scoring:
    return Scoring(normalise=bool(getattr(router, "norm_topk_prob", True)))


SOFTMAX_ROUTERS: dict[str, Callable[[nn.Module], Scoring]] = {
    "MixtralTopKRouter": _always,
    "MiniMaxTopKRouter": _always,
    "Qwen3_5MoeTopKRouter": _always,
    "GraniteMoeTopKRouter": _always,
    "GraniteMoeSharedTopKRouter": _always,
    "GraniteMoeHybridTopKRouter": _always,
    "Qwen2MoeTopKRouter": _by_flag,
    "Qwen3MoeTopKRouter": _by_flag,
    "Qwen3NextTopKRouter": _by_flag,
    "OlmoeTopKRouter": _by_flag,
    "FlexOlmoTopKRouter": _by_flag,
}
"""Routers that `paper` routing can extend: softmax over the logits (top-k before or after it is the same once
renormalised)."""


def scoring_of(router: nn.Module) -> Scoring:
    """How `router` scores; InputError where `paper` routing does not know it."""
    for kind in type(router).__mro__:
        if kind.__name__ in SOFTMAX_ROUTERS:
            return SOFTMAX_ROUTERS[kind.__name__](router)
    raise InputError(
        f"routing 'paper' does not know the router {type(router).__name__}.",
        mend="Use routing 'exact', which extends every family, or one of: "
        + ", ".join(sorted(SOFTMAX_ROUTERS))
        + ".",
    )


def find_sites(model: nn.Module) -> list[Site]:
    """The MoE blocks of a transformers model, lowest first; InputError for a model that has none."""
    sites: list[Site] = []
    for name, module in model.named_modules():
        experts = getattr(module, "experts", None)
        if not isinstance(experts, nn.Module) or not _is_fused(experts):
            continue
        router = getattr(module, "gate", None) or getattr(module, "router", None)
        if isinstance(router, nn.Module) and isinstance(getattr(router, "weight", None), Tensor):
            sites.append(Site(name, len(sites), router, experts))
    if not sites:
        raise InputError(
            f"{type(model).__name__} has no MoE block that can be extended.",
            mend="Use a Mixture-of-Experts model of transformers 5, such as OLMoE, Mixtral or Qwen-MoE, "
            "or make one of a dense model: moextend upcycle --help.",
        )
    return sites


def _is_fused(experts: nn.Module) -> bool:
    stacked = (getattr(experts, name, None) for name in ("gate_up_proj", "up_proj"))
    return any(isinstance(tensor, Tensor) and tensor.dim() == 3 for tensor in stacked)


def count_experts(site: Site) -> int:
    """Number of experts of the base in this block (m)."""
    count: int = site.experts.num_experts  # type: ignore[assignment]
    return count
