"""Router-input memory: retention without raw data. It keeps inputs of the MoE blocks at tokens of earlier data.

Losses on them keep new experts from acting on earlier data (moextend/extension/retention.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.extension.folder import MEMORY
from moextend.extension.probe import Which, tokens_of, watch_experts, watched
from moextend.extension.tensor_files import AGAIN, read_tensors, write_tensors
from moextend.model.batches import Collator
from moextend.model.multimodal import MultimodalLM
from moextend.moe.sites import Site, find_sites

FILE = MEMORY

RouterInputs = dict[int, Tensor]
"""MoE block -> router inputs [tokens, H] of earlier data."""

GROUP = 64
"""Conversations per draw of tokens; a constant, so that the draw does not depend on the batch size."""


@dataclass(frozen=True)
class Memory:
    """What is kept of earlier data: for each MoE block the values at some tokens."""

    router_inputs: RouterInputs = field(default_factory=dict)
    sizes: dict[int, Tensor] = field(default_factory=dict)
    """MoE block -> squared norm [tokens] of the output of its experts, shared ones not included."""
    expert_inputs: dict[int, Tensor] = field(default_factory=dict)
    """MoE block -> inputs of its experts [tokens, width], of blocks whose experts read other values than the router."""

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self.router_inputs)

    def tensors(self) -> dict[str, Tensor]:
        """As in the file: block, `block.size` and `block.experts` -> tensor."""
        found = {str(layer): x for layer, x in self.router_inputs.items()}
        found |= {f"{layer}.size": x for layer, x in self.sizes.items()}
        return found | {f"{layer}.experts": x for layer, x in self.expert_inputs.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Memory:
        """The inverse of `tensors`."""
        found = cls()
        fields = {"": found.router_inputs, "size": found.sizes, "experts": found.expert_inputs}
        for name, x in tensors.items():
            layer, _, kind = name.partition(".")
            fields[kind][int(layer)] = x
        return found


def collect(
    model: MultimodalLM,
    data: Sequence[Conversation],
    tokens: int,
    seed: int,
    *,
    batch_size: int = GROUP,
    which: Which = "all",
    layers: Collection[int] | None = None,
) -> Memory:
    """Memory of about `tokens` tokens per block, sampled uniformly from the tokens `which` of `data`.

    The tokens are sampled before the forward pass, and no other row is kept. The model and its active extensions
    compute the inputs.

    Args:
        batch_size: conversations in a forward pass, at most `GROUP`.
        which: the tokens that are sampled.
        layers: the MoE blocks whose inputs are kept; None: all.
    """
    collate, generator = Collator.of(model), torch.Generator().manual_seed(seed)
    groups = [data[start : start + GROUP] for start in range(0, len(data), GROUP)]
    pieces = []
    for group in groups:
        count = int(tokens_of(collate.ids(group), which).sum())
        drawn = torch.randperm(count, generator=generator)[: -(-tokens // len(groups))]
        pieces.append(_drawn(model, group, drawn, batch_size, which, layers))
    found = {name: x[:tokens].contiguous() for name, x in _joined(pieces).tensors().items()}
    return Memory.of(found)


def _drawn(
    model: MultimodalLM, data: Sequence[Conversation], drawn: Tensor, batch_size: int, which: Which,
    layers: Collection[int] | None,
) -> Memory:  # fmt: skip
    """Values at the tokens `drawn`, in that order; the numbers count the tokens `which` of `data`."""
    kept: dict[str, Tensor] = {}
    places = mine = torch.empty(0)
    sites = [site for site in find_sites(model.lm) if layers is None or site.layer in layers]

    def keep(name: str, x: Tensor) -> None:
        rows = x[places.to(x.device)].cpu()
        if name not in kept:
            kept[name] = rows.new_empty(len(drawn), *rows.shape[1:])
        kept[name][mine] = rows

    def look(site: Site, x: Tensor, out: object) -> None:
        keep(str(site.layer), x.flatten(0, -2))

    def computed(site: Site, read: Tensor, out: Tensor) -> None:
        keep(f"{site.layer}.experts", read)
        keep(f"{site.layer}.size", out.float().square().sum(-1))

    hooks = [watch_experts(site, partial(computed, site)) for site in sites]
    before = 0
    try:
        for mask in watched(model, data, sites, look, batch_size=batch_size, which=which):
            real = mask.flatten().nonzero().squeeze(1).cpu()
            mine = ((drawn >= before) & (drawn < before + len(real))).nonzero().squeeze(1)
            places = real[drawn[mine] - before]
            before += len(real)
    finally:
        for hook in hooks:
            hook.remove()
    return Memory.of(kept)


def write(memory: Memory, folder: Path) -> None:
    """Writes a memory to the folder of an extension."""
    write_tensors(folder / FILE, memory.tensors())


def read(folder: Path) -> Memory:
    """Memory from the folder of an extension; InputError if the file is missing or damaged."""
    tensors = read_tensors(folder / FILE)
    known = all(re.fullmatch(r"\d+(\.size|\.experts)?", name) for name in tensors)
    rows = {name: len(x) for name, x in tensors.items() if name.isdecimal() and x.dim() == 2 and len(x)}
    if not known or not all(rows.get(name.partition(".")[0]) == len(x) for name, x in tensors.items()):
        raise InputError(
            "is not a router-input memory of this version.",
            where=str(folder / FILE),
            hint=AGAIN,
        )
    return Memory.of(tensors)


def check(folders: Sequence[Path], layers: Collection[int]) -> None:
    """Raises InputError if the memory in one of the folders lacks what new experts in these MoE blocks need."""
    for folder in folders:
        known = sorted(read(folder).router_inputs)
        lacking = sorted(set(layers) - set(known))
        if lacking:
            raise InputError(
                f"has no router inputs of MoE layers {', '.join(map(str, lacking))}, which are to get new experts.",
                where=str(folder / FILE),
                hint=f"Extend layers {', '.join(map(str, known))}, or train that extension again with others.",
            )


def join(memories: Sequence[Memory]) -> Memory:
    """All memories, one after the other."""
    every = [Memory(one.router_inputs, one.sizes, one.router_inputs | one.expert_inputs) for one in memories]
    return _joined(every)


def _joined(memories: Sequence[Memory]) -> Memory:
    """All of them, without inputs of experts that are those of the router."""
    every = [memory.tensors() for memory in memories]
    names = [name for name in every[0] if all(name in own for own in every)] if every else []
    found = {name: torch.cat([own[name] for own in every]) for name in names}
    same = {
        n for n, x in found.items() if n.endswith(".experts") and torch.equal(x, found[n.partition(".")[0]])
    }
    return Memory.of({name: x for name, x in found.items() if name not in same})
