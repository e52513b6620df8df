"""Kept inputs *and outputs* of all MoE blocks at a token: what lower new experts change reaches the higher ones."""

from typing import Any

import torch

from moextend.extension.retention import SMALLEST, SampledLoss, sites_of
from moextend.extension.router_memory import Memory
from moextend.model.batches import Collator, on_device
from moextend.moe.sites import Site, find_sites

from ._base import OpenProblem


class ChainedPenalty(OpenProblem):
    """Retention of the blocks' outputs at kept tokens, with what lower blocks change added to a block's input."""

    def collected(self, model: Any, stage: Any, data: Any, **unused: Any) -> Memory:
        """For each block: the residual stream before its norm [tokens, H], and what its experts put out."""
        return collect(model, data, self.config.memory_tokens, stage.seed, stage.batch_size)

    def retention(self, model: Any, stage: Any, kept: Memory) -> Any:
        """``weight * mean(|y'(x') - y|^2 / |y|^2)`` over blocks and kept tokens."""
        config = self.config
        return chained(
            model, stage.task, kept, weight=config.memory_weight, sample=config.memory_sample, seed=stage.seed
        )


def norm_of(model: Any, site: Site) -> Any:
    """The norm before a block."""
    return model.lm.get_submodule(site.name.rpartition(".")[0]).post_attention_layernorm


def output(out: Any) -> torch.Tensor:
    """Output of a block [tokens, H]."""
    out = out[0] if isinstance(out, tuple) else out
    return out.flatten(0, -2)


@torch.no_grad()
def collect(model: Any, data: Any, tokens: int, seed: int, batch_size: int) -> Memory:
    """About `tokens` tokens a block, the same in each, drawn evenly from every batch of `data`."""
    collate, generator = Collator.of(model), torch.Generator().manual_seed(seed)
    seen: dict[str, torch.Tensor] = {}
    rows: dict[str, list[torch.Tensor]] = {}
    hooks = []
    for site in find_sites(model.lm):
        hooks += [
            norm_of(model, site).register_forward_pre_hook(
                lambda module, args, site=site: seen.update({str(site.layer): args[0].flatten(0, -2)})
            ),
            site.block.register_forward_hook(
                lambda module, args, out, site=site: seen.update({f"{site.layer}.experts": output(out)})
            ),
        ]
    try:
        starts = range(0, len(data), batch_size)
        for start in starts:
            batch = collate(data[start : start + batch_size])
            batch.pop("labels")
            real = batch["attention_mask"].flatten().nonzero().squeeze(1)
            drawn = real[torch.randperm(len(real), generator=generator)[: -(-tokens // len(starts))]]
            model.hidden(**on_device(batch, model.device))
            for name, x in seen.items():
                rows.setdefault(name, []).append(x[drawn.to(x.device)].cpu())
    finally:
        for hook in hooks:
            hook.remove()
    return Memory.of({name: torch.cat(pieces)[:tokens].contiguous() for name, pieces in rows.items()})


def chained(model: Any, name: str, kept: Memory, *, weight: float, sample: int, seed: int) -> SampledLoss:
    """The loss; every step draws `sample` kept tokens, and computes all blocks for them, lowest first."""
    sites, device = sites_of(model, name), model.device
    generator = torch.Generator().manual_seed(seed)
    values = {
        site.layer: (kept.router_inputs[site.layer].to(device), kept.expert_inputs[site.layer].to(device))
        for site in sites
    }
    least = {layer: SMALLEST * float(y.square().sum(-1).mean()) for layer, (_, y) in values.items()}

    def loss(batch: Any, out: Any) -> torch.Tensor:
        count = len(next(iter(values.values()))[0])
        rows = torch.randint(count, (min(sample, count),), generator=generator).to(device)
        total, shift = torch.zeros((), device=device), torch.zeros((), device=device)
        for site in sites:
            residual, y = (x[rows] for x in values[site.layer])
            changed = output(site.block(norm_of(model, site)(residual + shift).unsqueeze(0))) - y
            total = (
                total + (changed.square().sum(-1) / y.square().sum(-1).clamp_min(least[site.layer])).mean()
            )
            shift = shift + changed
        return weight * total / len(sites)

    return SampledLoss(loss, generator)
