"""Retention without raw data: a few router inputs of what was learnt before, which new experts must leave alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moextend import files
from moextend.batches import Conversation
from moextend.errors import InputError
from moextend.families import chooses_by_logits, family_of, features
from moextend.moe import Site, find_sites
from moextend.multimodal import MultimodalLM
from moextend.parts import RouterPart
from moextend.probe import router_inputs
from moextend.routing import Scope

if TYPE_CHECKING:
    from moextend.trainer import ExtraLoss

FILE = "memory.safetensors"

Memory = dict[int, Tensor]
"""MoE block -> router inputs [tokens, H] of earlier data."""


def remember(model: MultimodalLM, data: Sequence[Conversation], tokens: int, seed: int) -> Memory:
    """About `tokens` router inputs a block, drawn evenly over the real tokens of `data`, from the model as it is."""
    pieces: dict[int, list[Tensor]] = {site.layer: [] for site in find_sites(model.lm)}
    generator = torch.Generator().manual_seed(seed)
    batches = max(1, -(-len(data) // 64))
    for _, inputs in router_inputs(model, data):
        keep = torch.randperm(len(inputs[0]), generator=generator)[: -(-tokens // batches)]
        for layer, x in enumerate(inputs):
            pieces[layer].append(x[keep].cpu())
    return {layer: torch.cat(rows)[:tokens].contiguous() for layer, rows in pieces.items()}


def write(memory: Memory, folder: Path) -> None:
    """Keeps a memory beside an extension."""
    with files.atomic(folder / FILE) as path:
        save_file({str(layer): x for layer, x in memory.items()}, path)


def read(folder: Path) -> Memory:
    """The memory that `write` kept."""
    return {int(layer): x for layer, x in load_file(folder / FILE).items()}


def join(memories: Sequence[Memory]) -> Memory:
    """All memories as one."""
    if not memories:
        return {}
    return {layer: torch.cat([memory[layer] for memory in memories]) for layer in memories[0]}


@dataclass(frozen=True)
class DrawnLoss:
    """An extra loss that draws at random, so that an interrupted training can draw on where it was."""

    compute: ExtraLoss
    generator: torch.Generator

    def __call__(self, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        """The loss for a batch and what the model returned for it."""
        return self.compute(batch, out)

    def state_dict(self) -> dict[str, Tensor]:
        """The generator's state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Draws on from `state`."""
        self.generator.set_state(state["generator"])


def keep_closed(
    model: MultimodalLM, name: str, memory: Memory, *, margin: float, weight: float, sample: int, seed: int
) -> DrawnLoss:
    """A loss that keeps the new experts of extension `name` from remembered tokens.

    For remembered inputs x of a block it is ``weight * mean(relu(r x + b - threshold + margin))``, where the
    threshold is what a new expert must pass to be used: 0 in `exact` routing, the k-th logit of the base in `paper`;
    in `slot` routing 0 where the base chooses the parent, and out of reach where it does not.
    `sample` inputs a block are drawn at every step.
    """
    sites = [site for site in find_sites(model.lm) if name in getattr(site.router, "ext_parts", {})]
    generator = torch.Generator().manual_seed(seed)
    device = model.device
    kept = {site.layer: memory[site.layer].to(device) for site in sites}
    bars = {site.layer: _thresholds(site, name, kept[site.layer]) for site in sites}

    def loss(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros((), device=device)
        for site in sites:
            x = kept[site.layer]
            rows = torch.randint(len(x), (min(sample, len(x)),), generator=generator).to(device)
            part = cast(RouterPart, cast(Any, site.router).ext_parts[name])
            home = part.rows.device  # training may have moved the model
            seen = features(site.router, x[rows]).to(home)
            excess = part(seen) - bars[site.layer][rows].to(home) + margin
            total = total.to(home) + excess.clamp_min(0).mean()
        return weight * total / len(sites)

    return DrawnLoss(loss, generator)


@torch.no_grad()
def _thresholds(site: Site, name: str, x: Tensor) -> Tensor:
    """What a new logit must pass to be used, [tokens, 1] or, a column a new expert, [tokens, n]."""
    scope = cast(Scope, site.router.ext_scope)
    known = chooses_by_logits(site.router)
    if scope.mode == "exact" or (scope.mode == "slot" and not known):
        return torch.zeros(len(x), 1, device=x.device)
    if not known:
        raise InputError(
            f"{family_of(site.router).router} does not choose by its logits alone: "
            "memory cannot tell when a new expert is used.",
            mend="Use routing 'exact', or scope 'own' or 'auto'.",
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
