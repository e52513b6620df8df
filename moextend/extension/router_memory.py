"""Router-input memory: retention without raw data. A loss keeps new experts from acting on inputs of earlier data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.extension.probe import watched
from moextend.model.batches import Collator
from moextend.model.multimodal import MultimodalLM
from moextend.moe.families import chooses_by_logits, family_of, features
from moextend.moe.router_parts import RouterPart
from moextend.moe.routing import Scope
from moextend.moe.sites import Site, find_sites
from moextend.training.checkpoint import read_tensors, write_tensors

if TYPE_CHECKING:
    from moextend.training.trainer import ExtraLoss

FILE = "memory.safetensors"

RouterInputs = dict[int, Tensor]
"""MoE block -> router inputs [tokens, H] of earlier data."""

GROUP = 64
"""Conversations per draw of tokens; a constant, so that the draw does not depend on the batch size."""


def collect(
    model: MultimodalLM,
    data: Sequence[Conversation],
    tokens: int,
    seed: int,
    *,
    batch_size: int = GROUP,
    media: bool = True,
) -> RouterInputs:
    """Router inputs of about `tokens` tokens per block, sampled uniformly from the tokens of `data` without padding.

    The tokens are sampled before the forward pass, and no other row is kept. The model and its active extensions
    compute the inputs.

    Args:
        batch_size: conversations in a forward pass, at most `GROUP`.
        media: whether tokens of images and other media are sampled, too.
    """
    sites, collate = find_sites(model.lm), Collator.of(model)
    groups = [data[start : start + GROUP] for start in range(0, len(data), GROUP)]
    generator = torch.Generator().manual_seed(seed)
    pieces: dict[int, list[Tensor]] = {site.layer: [] for site in sites}
    for group in groups:
        count = sum(collate.lengths(group, media=media))
        drawn = torch.randperm(count, generator=generator)[: -(-tokens // len(groups))]
        for layer, rows in _rows(model, group, sites, drawn, batch_size, media).items():
            pieces[layer].append(rows)
    return {layer: torch.cat(rows)[:tokens].contiguous() for layer, rows in pieces.items()}


def _rows(
    model: MultimodalLM,
    data: Sequence[Conversation],
    sites: Sequence[Site],
    drawn: Tensor,
    batch_size: int,
    media: bool,
) -> RouterInputs:
    """Router inputs of the tokens `drawn`, in that order; the numbers count the tokens of `data` without padding."""
    kept: RouterInputs = {}
    places = mine = torch.empty(0)

    def look(site: Site, x: Tensor, out: object) -> None:
        x = x.flatten(0, -2)
        rows = x[places.to(x.device)].cpu()
        if site.layer not in kept:
            kept[site.layer] = rows.new_empty(len(drawn), rows.shape[1])
        kept[site.layer][mine] = rows

    before = 0
    for mask in watched(model, data, sites, look, batch_size=batch_size, media=media):
        real = mask.flatten().nonzero().squeeze(1).cpu()
        mine = ((drawn >= before) & (drawn < before + len(real))).nonzero().squeeze(1)
        places = real[drawn[mine] - before]
        before += len(real)
    return kept


def write(memory: RouterInputs, folder: Path) -> None:
    """Writes the router inputs to the folder of an extension."""
    write_tensors(folder / FILE, {str(layer): x for layer, x in memory.items()})


def read(folder: Path) -> RouterInputs:
    """Router inputs from the folder of an extension; InputError if the file is missing or damaged."""
    return {int(layer): x for layer, x in read_tensors(folder / FILE).items()}


def join(memories: Sequence[RouterInputs]) -> RouterInputs:
    """Concatenates the router inputs of all memories, block by block."""
    if not memories:
        return {}
    return {layer: torch.cat([memory[layer] for memory in memories]) for layer in memories[0]}


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
    sites = [site for site in find_sites(model.lm) if name in getattr(site.router, "ext_parts", {})]
    generator = torch.Generator().manual_seed(seed)
    device = model.device
    kept = {site.layer: memory[site.layer].to(device) for site in sites}
    thresholds = {site.layer: _thresholds(site, name, kept[site.layer]) for site in sites}

    def loss(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros((), device=device)
        for site in sites:
            x = kept[site.layer]
            rows = torch.randint(len(x), (min(sample, len(x)),), generator=generator).to(device)
            part = cast(RouterPart, cast(Any, site.router).ext_parts[name])
            home = part.rows.device  # training may have moved the model
            seen = features(site.router, x[rows]).to(home)
            excess = part(seen) - thresholds[site.layer][rows].to(home) + margin
            total = total.to(home) + excess.clamp_min(0).mean()
        return weight * total / len(sites)

    return SampledLoss(loss, generator)


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
