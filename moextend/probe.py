"""Which layers get a new expert, and which expert it is copied from (MoExtend, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from moextend.batches import Collator, Conversation
from moextend.families import chosen_experts, rows_of
from moextend.moe import count_experts, find_sites
from moextend.multimodal import MultimodalLM

LayerChoice = Literal["probe", "all", "first", "last", "random"]


@dataclass(frozen=True)
class Probe:
    """What the probe saw: per MoE block, lowest first."""

    before: list[list[float]]
    """r_ij: share of the top-k choices that expert i of block j got on held-out data, from the aligned model."""
    change: list[float]
    """d_j: standard deviation over experts of the change in r_ij when only the routers are tuned; 0 without a probe."""


def selection_shares(
    model: MultimodalLM, data: Sequence[Conversation], *, batch_size: int = 64
) -> list[list[float]]:
    """r_ij over the real tokens of `data` (padding left out), base experts only, each block summing to one."""
    sites = find_sites(model.lm)
    counts = [torch.zeros(count_experts(site)) for site in sites]
    for _, _, chosen in _watch(model, data, batch_size):
        for site, index in zip(sites, chosen, strict=True):
            base = index[index < len(counts[site.layer])].cpu()
            counts[site.layer] += torch.bincount(base, minlength=len(counts[site.layer])).float()
    return [(count / count.sum()).tolist() for count in counts]


def router_inputs(model: MultimodalLM, data: Sequence[Conversation], *, batch_size: int = 64) -> Any:
    """Yields, batch by batch, (rows of `data`, the router inputs [tokens, H] of every block, padding left out)."""
    for rows, inputs, _ in _watch(model, data, batch_size):
        yield rows, inputs


def _watch(model: MultimodalLM, data: Sequence[Conversation], batch_size: int) -> Any:
    """Yields, batch by batch, (rows of `data`, router inputs [tokens, H], chosen experts [tokens, k]) of every block.

    Padding is left out.
    """
    collate = Collator.of(model)
    sites = find_sites(model.lm)
    caught: dict[int, tuple[Tensor, Tensor]] = {}
    hooks = [
        site.router.register_forward_hook(
            lambda module, args, out, layer=site.layer: caught.__setitem__(
                layer, (args[0], chosen_experts(module, out))
            )
        )
        for site in sites
    ]
    try:
        for start in range(0, len(data), batch_size):
            batch = collate(data[start : start + batch_size])
            batch.pop("labels")
            with torch.no_grad():
                model.hidden(**{key: value.to(model.device) for key, value in batch.items()})
            real = batch["attention_mask"].flatten().bool().to(model.device)
            inputs, chosen = (
                [caught[site.layer][part].reshape(len(real), -1)[real] for site in sites] for part in (0, 1)
            )
            yield range(start, min(start + batch_size, len(data))), inputs, chosen
    finally:
        for hook in hooks:
            hook.remove()


def probe_layers(model: MultimodalLM, held_out: Sequence[Conversation], tune: Callable[[], object]) -> Probe:
    """Tunes all base routers by a short call of `tune` and compares their choices on `held_out`.

    The tuned routers are thrown away: the model is left bit for bit as it was.
    """
    before = selection_shares(model, held_out)
    routers = [cast(torch.nn.Parameter, rows_of(site.router)) for site in find_sites(model.lm)]
    kept = [weight.detach().clone() for weight in routers]
    model.learn_only([name for name, p in model.named_parameters() if any(p is w for w in routers)])
    try:
        tune()
        after = selection_shares(model, held_out)
    finally:
        with torch.no_grad():
            for weight, old in zip(routers, kept, strict=True):
                weight.copy_(old)
        model.learn_only([])
    change = [
        float((torch.tensor(new) - torch.tensor(old)).std()) for old, new in zip(before, after, strict=True)
    ]
    return Probe(before, change)


def choose_layers(how: LayerChoice, share: float, probe: Probe, seed: int = 0) -> list[int]:
    """The blocks that get a new expert: floor(share x L), at least one.

    probe: those of largest d_j. first, last: the lowest, the highest. random: drawn by seed. all: every block.
    """
    total = len(probe.before)
    wanted = max(1, int(share * total))
    if how == "all":
        return list(range(total))
    if how == "first":
        return list(range(wanted))
    if how == "last":
        return list(range(total - wanted, total))
    if how == "random":
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        return sorted(drawn[:wanted].tolist())
    return sorted(sorted(range(total), key=lambda j: -probe.change[j])[:wanted])


def parents(probe: Probe, layers: Sequence[int], count: int = 1) -> dict[int, list[int]]:
    """Block -> the `count` most chosen experts i* = argmax_i r_ij, from which new experts are copied."""
    plan = {}
    for layer in layers:
        ranked = sorted(range(len(probe.before[layer])), key=lambda i: -probe.before[layer][i])
        plan[layer] = [ranked[i % len(ranked)] for i in range(count)]
    return plan
