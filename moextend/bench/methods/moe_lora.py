"""MoELoRA (CoIN, Chen et al., 2024, arXiv 2403.08350): every adapted map gets several small LoRA experts and a router.

``y = W x + alpha / rank sum_e softmax(G x)_e B_e A_e x``; all of them are trained in every stage. The adapted maps are
the attention's projections and each block of experts of the base, as one map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from moextend.bench.methods import adapters, trained
from moextend.bench.methods.method import Knob, LoraRank, Rate
from moextend.bench.methods.weights import TrainedWeights, one_strength
from moextend.moe.recipe import MOST_EXPERTS
from moextend.moe.strengths import named

if TYPE_CHECKING:
    from torch import nn

    from moextend import MultimodalLM
    from moextend.moe.sites import Site

MARK = "moe_lora"


class MoeLora(TrainedWeights):
    """LoRA experts with a router for each map, trained in every stage."""

    look = ("indigo", ">")

    class Config(TrainedWeights.Config):
        """What can be set."""

        experts: int = Field(default=4, ge=1, le=MOST_EXPERTS)
        rank: LoraRank = 8
        """Rank of each expert."""
        alpha: Rate | None = None
        """None: twice the rank."""

    config: Config

    @property
    def mark(self) -> str:
        """Part of the names of the experts and routers."""
        return f".{MARK}."

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The rank."""
        return (Knob("rank"),)

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Adds the LoRA experts to the maps; they have no effect until they are trained."""
        import torch

        from moextend.bench.methods.mixture import Mixture
        from moextend.model import lm_head
        from moextend.moe import sites

        config = self.config
        scale = (2 * config.rank if config.alpha is None else config.alpha) / config.rank
        torch.manual_seed(seed)
        hidden = lm_head.text_config(model.lm.config).hidden_size
        known = dict(model.lm.named_modules())
        attention = [known[name] for name in adapters.attention_maps(model.lm)]
        maps = [(module, module.in_features, module.out_features) for module in attention]
        maps += [(_block(site), hidden, hidden) for site in sites.find_sites(model.lm)]
        for module, inputs, outputs in maps:
            mixture = Mixture(inputs, outputs, config.experts, config.rank, scale)
            module.add_module(MARK, mixture.to(model.device))
            module.register_forward_hook(_add)
        model.learn_only([])

    def keep_base(self, model: MultimodalLM) -> None:
        """Nothing: without the LoRA experts the model is the base."""

    def scale(self, model: MultimodalLM, task: str, strengths: Mapping[str, float]) -> str:
        """Scales the output of the LoRA experts."""
        from moextend.bench.methods.mixture import Mixture

        strength = one_strength(strengths)
        for module in model.lm.modules():
            if isinstance(module, Mixture):
                module.strength = strength
        if not strength:
            return model.base_fingerprint()
        return named(trained.fingerprint(model, [self.parameters(model)]), strength)


def _block(site: Site) -> nn.Module:
    """Module whose input and output are those of the experts: the block, or in a layer that has them the experts."""
    is_layer = any("attn" in name for name, _ in site.block.named_children())
    return site.experts if is_layer else site.block


def _add(module: Any, args: tuple[Any, ...], out: Any) -> Any:
    mixture = getattr(module, MARK)
    if not mixture.strength:
        return out
    added = mixture(args[0])
    return (out[0] + added, *out[1:]) if isinstance(out, tuple) else out + added
