"""Retention losses: they keep new experts from acting on earlier data, of which router inputs or latents are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from moextend.errors import InputError
from moextend.extension import latents
from moextend.extension.latents import Latents
from moextend.extension.probe import watch_experts
from moextend.extension.router_memory import Memory, RouterInputs
from moextend.model.multimodal import MultimodalLM
from moextend.moe.families import chooses_by_logits, family_of, features
from moextend.moe.router_parts import RouterPart
from moextend.moe.routing import Scope, add_gated, hard_gate
from moextend.moe.sites import Site, find_sites

if TYPE_CHECKING:
    from moextend.training.trainer import ExtraLoss

SMALLEST = 0.01
"""Smallest size of an output that a change is compared with, as a share of the mean size in its block."""


@dataclass(frozen=True)
class SampledLoss:
    """An extra loss with random samples; its state is saved, so that an interrupted training resumes exactly."""

    compute: ExtraLoss
    generator: torch.Generator

    def __call__(self, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        """Loss for a batch and the model output."""
        return self.compute(batch, out)

    def state_dict(self) -> dict[str, Tensor]:
        """The generator's state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the generator's state."""
        self.generator.set_state(state["generator"])


def sites_of(model: MultimodalLM, name: str) -> list[Site]:
    """MoE blocks with new experts of extension `name`."""
    return [site for site in find_sites(model.lm) if name in getattr(site.router, "ext_parts", {})]


def sampled_loss(
    model: MultimodalLM,
    name: str,
    memory: RouterInputs,
    term: Callable[[Site, Tensor], Tensor],
    *,
    weight: float,
    sample: int,
    seed: int,
) -> SampledLoss:
    """``weight`` times the mean of a term over the MoE blocks with new experts of extension `name`.

    Args:
        term: (block, places [S] of kept inputs in its memory) -> a mean over them. Every step draws `sample` places, or
            as many as there are.
    """
    sites, device = sites_of(model, name), model.device
    generator = torch.Generator().manual_seed(seed)

    def loss(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros((), device=device)
        for site in sites:
            count = len(memory[site.layer])
            own = term(site, torch.randint(count, (min(sample, count),), generator=generator).to(device))
            total = total.to(own.device) + own
        return weight * total / len(sites)

    return SampledLoss(loss, generator)


def retention_loss(
    model: MultimodalLM,
    name: str,
    memory: RouterInputs,
    *,
    margin: float,
    weight: float,
    sample: int,
    seed: int,
) -> SampledLoss:
    """Loss that keeps the new experts of extension `name` from acting on the router inputs in `memory`.

    For inputs x of a block it is ``weight * mean(relu(r x + b - threshold + margin))``. The threshold is the value that
    the logit of a new expert must exceed for the expert to be used: 0 in `exact` routing, the k-th logit of the base in
    `paper` routing. In `slot` routing it is 0 where the base chooses the parent, else infinity.
    Every step samples `sample` inputs per block.

    Raises:
        InputError: `paper` routing with a router that does not choose by its logits alone.
    """
    sites, device = sites_of(model, name), model.device
    kept = {site.layer: memory[site.layer].to(device) for site in sites}
    thresholds = {site.layer: _thresholds(site, name, kept[site.layer]) for site in sites}

    def excess(site: Site, rows: Tensor) -> Tensor:
        part = cast(RouterPart, cast(Any, site.router).ext_parts[name])
        home = part.rows.device  # training may have moved the model
        seen = features(site.router, kept[site.layer][rows]).to(home)
        logits: Tensor = part(seen)
        return (logits - thresholds[site.layer][rows].to(home) + margin).clamp_min(0).mean()

    return sampled_loss(model, name, memory, excess, weight=weight, sample=sample, seed=seed)


@torch.no_grad()
def _thresholds(site: Site, name: str, x: Tensor) -> Tensor:
    """Value that a new logit must exceed to be used: [tokens, 1], or [tokens, n] with a column per new expert."""
    scope = cast(Scope, site.router.ext_scope)
    known = chooses_by_logits(site.router)
    if scope.mode == "exact" or (scope.mode == "slot" and not known):
        return torch.zeros(len(x), 1, device=x.device)
    if not known:
        raise InputError(
            f"{family_of(site.router).router} does not choose by its logits alone: "
            "the retention loss has no threshold for new experts.",
            hint="Use routing 'exact', or scope 'own' or 'auto'.",
        )
    parents = cast(RouterPart, cast(Any, site.router).ext_parts[name]).parents
    active, scope.active = scope.active, ()
    try:
        logits, weights, index = cast(Any, site.router)(x)[:3]
    finally:
        scope.active = active
    if scope.mode == "slot":
        chosen = (index.unsqueeze(-1) == torch.tensor(parents, device=index.device)).any(1)
        return torch.zeros_like(chosen, dtype=x.dtype).masked_fill(~chosen, torch.inf)
    return cast(Tensor, logits.topk(weights.shape[-1], dim=-1)[0][:, -1:])


def output_loss(
    model: MultimodalLM, name: str, memory: Memory, *, weight: float, sample: int, seed: int
) -> SampledLoss:
    """Loss on what the new experts of extension `name` add to the output of their block at the inputs in `memory`.

    For router inputs x it is ``weight * mean(|g(x) E(x)|^2 / |y(x)|^2)``: g are the gates of the new experts E, and y
    is the output of the block's experts when the memory was kept. The gates may stay open, as the new experts can tell
    earlier inputs apart themselves. Every step samples `sample` inputs per block. `exact` routing only.

    Raises:
        InputError: another routing mode, or a memory without sizes of outputs.
    """
    sites, device = sites_of(model, name), model.device
    _check_exact(sites, "output")
    lacking = [site.layer for site in sites if site.layer not in memory.sizes]
    if lacking:
        raise InputError(
            f"the router-input memory has no sizes of outputs of MoE layers {', '.join(map(str, lacking))}.",
            hint="Use retention 'memory'.",
        )
    kept = {
        site.layer: (
            memory.router_inputs[site.layer].to(device),
            memory.expert_inputs.get(site.layer, memory.router_inputs[site.layer]).to(device),
            _sizes(memory.sizes[site.layer]).to(device),
        )
        for site in sites
    }

    def change(site: Site, rows: Tensor) -> Tensor:
        x, read, sizes = kept[site.layer]
        added = _added(site, name, x[rows], read[rows]).float().square().sum(-1)
        return (added / sizes[rows].to(added.device)).mean()

    return sampled_loss(model, name, memory.router_inputs, change, weight=weight, sample=sample, seed=seed)


def latent_loss(
    model: MultimodalLM, name: str, kept: Latents, *, weight: float, sample: int, seed: int
) -> SampledLoss:
    """Loss on what the new experts of extension `name` add to the outputs of their blocks in passes of kept inputs.

    It is ``weight * sum_l mean(|g(x_l) E_l(x_l)|^2 / |y_l(x_l)|^2)`` over the blocks l with new experts E_l, gates g:
    x_l are the router inputs of a pass with the new experts, and y_l is what the block's other experts put out there.
    So new experts of lower layers cannot change what those of higher layers read, as they can in `output_loss`. Every
    step samples inputs of about `sample` tokens, at least one, or takes all. `exact` routing only.

    Raises:
        InputError: another routing mode.
    """
    sites = sites_of(model, name)
    _check_exact(sites, "latent")
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, round(sample * len(kept.states) / sum(map(len, kept.states))))

    def loss(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        count = len(kept.states)
        drawn = torch.randint(count, (rows,), generator=generator) if rows < count else torch.arange(count)
        states, mask = latents.padded([kept.states[i] for i in drawn.tolist()])
        with _watched(sites) as seen:
            latents.through(model, states, mask, kept.layer)
        total = torch.zeros((), device=model.device)
        for site in sites:
            x, read, y = seen[site.layer]
            real = mask.flatten().to(x.device) > 0
            added = _added(site, name, x[real], read[real]).float()
            before = (y[real].to(added.device).float() - added).detach().square().sum(-1)
            own = (added.square().sum(-1) / _sizes(before)).mean()
            total = total.to(own.device) + own
        return weight * total

    return SampledLoss(loss, generator)


@contextmanager
def _watched(sites: Sequence[Site]) -> Iterator[dict[int, list[Tensor]]]:
    """Context that yields, after a forward pass, for each MoE block: [tokens, ...] inputs of its router, inputs of its
    experts, and what its experts put out."""
    seen: dict[int, list[Tensor]] = {site.layer: [] for site in sites}

    def watch(site: Site) -> tuple[RemovableHandle, RemovableHandle]:
        own = seen[site.layer]
        return (
            site.router.register_forward_hook(lambda module, args, out: own.append(args[0].flatten(0, -2))),
            watch_experts(site, lambda read, out: own.extend((read, out))),
        )

    hooks = [hook for site in sites for hook in watch(site)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _check_exact(sites: Sequence[Site], retention: str) -> None:
    """Raises InputError unless new experts are routed in exact mode."""
    if any(cast(Scope, site.router.ext_scope).mode != "exact" for site in sites):
        raise InputError(f"retention '{retention}' needs routing 'exact'.", hint="Use retention 'memory'.")


def _sizes(sizes: Tensor) -> Tensor:
    """Sizes [tokens] of outputs, where tokens without an output have a share of the mean."""
    return sizes.clamp_min(SMALLEST * float(sizes.mean()))


def _added(site: Site, name: str, x: Tensor, read: Tensor) -> Tensor:
    """What the new experts add [S, H] for router inputs x [S, H] and their own inputs `read` [S, width]."""
    part = cast(RouterPart, cast(Any, site.router).ext_parts[name])
    group = cast(Any, site.experts).ext_groups[name]
    home = part.rows.device  # training may have moved the model
    gates = hard_gate(part(features(site.router, x).to(home)))
    read = read.to(home)
    return add_gated(torch.zeros_like(read), [group], read, gates.to(read.dtype))
