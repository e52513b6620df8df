"""What the tokens of some data do in MoE blocks: which layers change most and get new experts, copied from which
experts (MoExtend, section 3.2), and which experts are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from moextend.data.conversations import Conversation
from moextend.errors import InputError, UnknownName
from moextend.model.batches import Collator, on_device
from moextend.model.feature_cache import expecting
from moextend.model.multimodal import IGNORE, MultimodalLM
from moextend.moe.dense_blocks import DenseRouter, dense_weights
from moextend.moe.families import chosen_experts, rows_of
from moextend.moe.recipe import LayerChoice, count_layers, fixed_layers
from moextend.moe.routing import ExtendedRouter
from moextend.moe.sites import Site, count_experts, find_sites, first_new_id


@dataclass(frozen=True)
class Probe:
    """Result of the probe per MoE block, lowest first."""

    before: list[list[float]]
    """r_ij: share of expert i of block j in the top-k choices on held-out data, in the aligned model."""
    change: list[float]
    """d_j: standard deviation over experts of the change in r_ij after router tuning; empty without a probe."""


Look = Callable[[Site, Tensor, Any], None]
"""Callback for a router call: (block, inputs [..., H], output)."""

Which = Literal["all", "text", "answers"]
"""Tokens of conversations without padding: all; those of text; those after which a token with a label comes."""


def tokens_of(batch: Mapping[str, Tensor], which: Which) -> Tensor:
    """Mask [B, T] of these tokens of a batch with `input_ids`, `attention_mask` and `labels`."""
    real = batch["attention_mask"].bool()
    if which == "text":
        return real & (batch["input_ids"] >= 0)
    if which == "answers":
        return real & F.pad(batch["labels"][:, 1:] != IGNORE, (0, 1))
    return real


def selection_shares(
    model: MultimodalLM, data: Sequence[Conversation], *, batch_size: int = 64
) -> list[list[float]]:
    """r_ij over the tokens of `data` without padding, for base experts only; each block sums to one.

    Choices are counted during the forward pass on the block's device; no router input is kept.
    """
    if not len(data) or batch_size < 1:
        raise InputError(
            f"{len(data)} conversations in batches of {batch_size}.",
            where="selection_shares",
            hint="Give at least one of each.",
        )
    sites = find_sites(model.lm)
    experts = {site.layer: count_experts(site) for site in sites}
    counts: dict[int, Tensor] = {}
    weights = torch.empty(0)

    def count(site: Site, x: Tensor, out: Any) -> None:
        total = experts[site.layer]
        chosen = chosen_experts(site.router, out).reshape(len(weights), -1).long()
        if site.layer not in counts:
            counts[site.layer] = torch.zeros(total + 1, dtype=torch.long, device=chosen.device)
        # The last entry counts new experts. Integer sums do not depend on the order.
        places = chosen.masked_fill((chosen < 0) | (chosen >= total), total)
        real = weights.to(chosen.device).unsqueeze(-1).expand_as(places)
        counts[site.layer].scatter_add_(0, places.flatten(), real.flatten())

    for batch in watched(model, data, sites, count, batch_size=batch_size):
        weights = batch.flatten().long()
    found = [counts[site.layer][:-1].cpu().float() for site in sites]
    return [(count / count.sum()).tolist() for count in found]


@torch.no_grad()
def watched(
    model: MultimodalLM, data: Sequence[Conversation], sites: Sequence[Site], look: Look, *, batch_size: int,
    which: Which = "all",
) -> Iterator[Tensor]:  # fmt: skip
    """Computes `data` batch by batch and calls `look` for every router of `sites`.

    Yields the mask [B, T] of the tokens `which` of a batch, on the model's device, before the batch is computed: inputs
    and outputs of a router are in the order of these tokens.
    """
    collate = Collator.of(model)
    hooks = [
        site.router.register_forward_hook(lambda module, args, out, site=site: look(site, args[0], out))
        for site in sites
    ]
    try:
        with expecting(model, data, range(len(data))):
            for start in range(0, len(data), batch_size):
                batch = collate(data[start : start + batch_size])
                yield tokens_of(batch, which).to(model.device)
                batch.pop("labels")
                model.hidden(**on_device(batch, model.device))
    finally:
        for hook in hooks:
            hook.remove()


def watch_experts(site: Site, look: Callable[[Tensor, Tensor], object]) -> RemovableHandle:
    """Calls `look` in each pass with the inputs [tokens, ...] and outputs [tokens, H] of the experts of a block.

    Experts of a dense block read weighted copies of the block's inputs; new experts read the inputs themselves, and so
    does `look`.
    """

    def hook(module: torch.nn.Module, args: Any, out: Any) -> None:
        out = out[0] if isinstance(out, tuple) else out
        look(args[0].flatten(0, -2), out.flatten(0, -2))

    return (site.block if site.dense else site.experts).register_forward_hook(hook)


def probe_layers(
    model: MultimodalLM,
    held_out: Sequence[Conversation],
    tune: Callable[[], object],
    *,
    batch_size: int = 64,
) -> Probe:
    """Tunes all base routers by a short call of `tune` and compares their choices on `held_out`.

    The former router weights are restored afterwards, bit for bit. `batch_size`: conversations in a forward pass of the
    comparison.
    """
    before = selection_shares(model, held_out, batch_size=batch_size)
    routers = [cast(torch.nn.Parameter, rows_of(site.router)) for site in find_sites(model.lm)]
    kept = [weight.detach().clone() for weight in routers]
    model.learn_only([name for name, p in model.named_parameters() if any(p is w for w in routers)])
    try:
        tune()
        after = selection_shares(model, held_out, batch_size=batch_size)
    finally:
        with torch.no_grad():
            for weight, old in zip(routers, kept, strict=True):
                weight.copy_(old)
        model.learn_only([])
    pairs = zip(before, after, strict=True)
    return Probe(before, [float((torch.tensor(new) - torch.tensor(old)).std()) for old, new in pairs])


def choose_layers(how: LayerChoice, share: float, probe: Probe, seed: int = 0) -> list[int]:
    """Blocks that get a new expert: floor(share x L) of them, at least one.

    probe: largest d_j. first, last: the lowest, the highest. random: drawn by `seed`. all: every block.

    Raises:
        InputError: the share is not above 0 and up to 1; UnknownName: an unknown `how`.
    """
    total = len(probe.before)
    if how not in get_args(LayerChoice):
        raise UnknownName("choice of layers", how, get_args(LayerChoice), where="choose_layers")
    if not 0 < share <= 1 or not total:
        raise InputError(
            f"a share of {share:g} of {total} layers is none.",
            where="choose_layers",
            hint="Give a share above 0, up to 1.",
        )
    known = fixed_layers(how, share, total)
    if known is not None:
        return known
    wanted = count_layers(how, share, total)
    if how == "random":
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        return sorted(drawn[:wanted].tolist())
    return sorted(sorted(range(total), key=lambda j: -probe.change[j])[:wanted])


def parents(probe: Probe, layers: Sequence[int], count: int = 1) -> dict[int, list[int]]:
    """Block -> the `count` most chosen experts (i* = argmax_i r_ij), the parents of the new experts."""
    plan = {}
    if count < 1 or any(not 0 <= layer < len(probe.before) for layer in layers):
        raise InputError(
            f"{count} parents in layers {list(layers)} of {len(probe.before)}.",
            where="parents",
            hint="Give at least one parent, and layers that were probed, lowest 0.",
        )
    for layer in layers:
        ranked = sorted(range(len(probe.before[layer])), key=lambda i: -probe.before[layer][i])
        plan[layer] = [ranked[i % len(ranked)] for i in range(count)]
    return plan


BASE = ""
"""Name of the base among the names of extensions."""


@dataclass
class Use:
    """Number of uses of experts, summed over all counted data; per MoE block, lowest first."""

    tokens: int = 0
    """Number of tokens, without padding."""
    experts: list[dict[str, Tensor]] = field(default_factory=list)
    """Extension (BASE: the base) -> number of tokens [experts] with a weight above zero for each of its experts."""
    reached: list[dict[str, int]] = field(default_factory=list)
    """Extension -> number of tokens that use at least one of its experts."""

    def add(self, block: int, used: dict[str, Tensor]) -> None:
        """Adds a batch of a block: extension -> which of its experts each token uses, [tokens, experts]."""
        while len(self.experts) <= block:
            self.experts.append({})
            self.reached.append({})
        for name, mine in used.items():
            experts, reached = self.experts[block], self.reached[block]
            experts[name] = mine.sum(0).cpu() + experts.get(name, 0)
            reached[name] = int(mine.any(1).sum()) + reached.get(name, 0)


@torch.no_grad()
def count_use(
    model: MultimodalLM,
    sites: Sequence[Site],
    data: Sequence[Conversation],
    use: Use,
    *,
    batch_size: int = 32,
) -> None:
    """Adds to `use` the experts that the tokens of `data` use in the blocks `sites`, with the active extensions."""
    real = torch.empty(0)

    def look(site: Site, x: Tensor, out: Any) -> None:
        use.add(site.layer, {k: v[real.to(v.device)] for k, v in used_experts(site, x, out).items()})

    for mask in watched(model, data, sites, look, batch_size=batch_size):
        real = mask.flatten()
        use.tokens += int(real.sum())


def used_experts(site: Site, x: Tensor, out: Any) -> dict[str, Tensor]:
    """Extension -> which of its experts each token uses, [T, experts], from a router's inputs and output."""
    router, base = site.router, first_new_id(site)
    counts = {BASE: base}
    if isinstance(router, ExtendedRouter):
        parts: Any = router.ext_parts
        counts |= {name: parts[name].count for name in router.ext_scope.active if name in parts}
    index = chosen_experts(router, out)
    index = index.reshape(-1, index.shape[-1]).long()
    total = sum(counts.values())
    chosen = torch.ones_like(index, dtype=torch.bool)
    if isinstance(router, DenseRouter) and len(counts) > 1:
        weights = dense_weights(router, x.reshape(-1, x.shape[-1]), out[1])
        if router.ext_scope.mode == "exact":
            own = torch.zeros(len(index), base, device=index.device).scatter(1, index, 1.0)
            weights = torch.cat([own, weights.to(own.dtype)], 1)
        used = weights > 0
    else:
        if len(counts) > 1:
            chosen = (index < base) | (out[1].reshape(index.shape) > 0)  # a closed gate lets nothing through
        used = torch.zeros(len(index), total, device=index.device).scatter_add(1, index, chosen.float()) > 0
    return dict(zip(counts, torch.split(used, list(counts.values()), dim=1), strict=True))
