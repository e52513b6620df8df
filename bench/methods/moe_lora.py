"""MoELoRA (CoIN, Chen et al., 2024, arXiv 2403.08350): every adapted map gets several small LoRA experts and a router.

``y = W x + alpha / rank sum_e softmax(G x)_e B_e A_e x``, all trained on, stage after stage. Adapted are the
attention's projections and, as one map, each block of experts of the base.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from moextend import heads, moe
from moextend.bench.methods.method import Rank, Rate
from moextend.bench.methods.weights import (
    Trained,
    learn,
    probe_steps,
    restore,
    save,
    select,
    told,
)
from moextend.recipe import MOST_EXPERTS

if TYPE_CHECKING:
    from torch import nn

    from moextend import MultimodalLM

__all__ = ["Config", "learn", "probe_steps", "restore", "save", "select", "start", "told"]

MARK = "moe_lora"


class Config(Trained):
    """Settings of MoELoRA."""

    experts: int = Field(4, ge=1, le=MOST_EXPERTS)
    rank: Rank = 8
    """Of each expert."""
    alpha: Rate | None = None
    """None takes twice the rank."""

    @property
    def mark(self) -> str:
        """Part of the names of what is trained."""
        return f".{MARK}."


def start(model: MultimodalLM, config: Config, seed: int) -> None:
    """Puts the experts beside what they adapt; they add nothing until they are trained."""
    import torch

    from moextend.bench.methods.mixture import Mixture

    scale = (2 * config.rank if config.alpha is None else config.alpha) / config.rank
    torch.manual_seed(seed)
    hidden = heads.text_config(model.lm.config).hidden_size
    maps = [(m, m.in_features, m.out_features) for n, m in model.lm.named_modules() if _attention(n)]
    maps += [(_block(model, site.router), hidden, hidden) for site in moe.find_sites(model.lm)]
    for module, inputs, outputs in maps:
        mixture = Mixture(inputs, outputs, config.experts, config.rank, scale)
        module.add_module(MARK, mixture.to(model.device))
        module.register_forward_hook(_add)
    model.learn_only([])


def _attention(name: str) -> bool:
    return "self_attn." in name and name.endswith("proj")


def _block(model: MultimodalLM, router: nn.Module) -> nn.Module:
    """The module that holds a router."""
    modules: Iterator[nn.Module] = model.lm.modules()
    return next(module for module in modules if any(child is router for child in module.children()))


def _add(module: Any, args: tuple[Any, ...], out: Any) -> Any:
    added = getattr(module, MARK)(args[0])
    return (out[0] + added, *out[1:]) if isinstance(out, tuple) else out + added
