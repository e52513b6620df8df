"""A MoE block of vLLM with the new experts of extensions; each token computes those of its request.

exact: the base's block is called as it is, and the gated new experts are added. slot and paper: the router that vLLM
made for the block is asked, and new experts compete with its choice as they do in moextend (moe/competing.py). In the
base's experts the slots that they win have the weight zero.

Except on a CPU, shapes depend on the number of tokens only, and vLLM compiles the model around `added`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moextend.export.served import MARK, SCALE, Served
from moextend.moe.competing import paper_choice, slot_choice
from moextend.moe.families import scoring_of
from moextend.moe.kernels import asks_device, held
from moextend.moe.routing import add_columns, add_gated, add_gathered, hard_gate

_ADDED: dict[str, Added] = {}
"""Name of a block -> what is added to it: an operation of PyTorch has tensors and texts as arguments."""


@torch.library.custom_op("moextend::added", mutates_args=())
def added(x: Tensor, name: str) -> Tensor:
    """What the extensions add to the output of a block for its inputs [T, H]."""
    found: Tensor = _ADDED[name].added(x)
    return found


@added.register_fake
def _(x: Tensor, name: str) -> Tensor:
    return torch.empty_like(x)


class Extended(nn.Module):
    """Mixin for the class of a block of vLLM that adds what extensions add."""

    ext_name: str

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Output of the block."""
        x = hidden_states.view(-1, hidden_states.shape[-1])
        more: Tensor = added(x, self.ext_name)  # first: vLLM may compute the block in place
        out: Tensor = super().forward(hidden_states)
        return out + more.view_as(hidden_states)


def extend_block(block: Any, added: Added) -> None:
    """Gives a block the subclass of its class, in place, so that names of its weights stay."""
    _ADDED[added.name], kind = added, type(block)
    block.__class__ = type(f"Extended{kind.__name__}", (Extended, kind), {"ext_name": added.name})
    if added.mode != "exact":
        block.experts.router.select_experts = added.for_base


class Added:
    """What extensions add to a block."""

    def __init__(
        self,
        name: str,
        block: Any,
        router: Any,
        groups: Mapping[str, Any],
        adapted: nn.Module,
        served: Served,
    ) -> None:
        """
        Args:
            name: of the block in the model.
            router: the extended router of transformers, without the base's weights.
            groups: extension -> its new experts in this block.
            adapted: the module whose output projection has the adapters, which carry the numbers of models.
        """
        some = next(block.parameters())
        self.name, self.block, self.adapted, self.mode = name, block, adapted, served.mode
        self.first = int(router.ext_first)
        self.parts = [part.to(some.device) for part in router.ext_parts.values()]  # routers stay float32
        self.groups = [group.to(some.device, some.dtype) for group in groups.values()]
        own = [list(served.extensions).index(each) for each in router.ext_parts]
        self.rows = served.table()[:, own]
        self.table = self.rows.to(some.device)
        self.choose = block.experts.router.select_experts
        """The base's choice: weights and experts [T, k]."""
        self.how = scoring_of(router) if self.mode == "paper" else None

    def added(self, x: Tensor) -> Tensor:
        """What the extensions add for inputs [T, H]."""
        nothing = torch.zeros_like(x)
        if self.mode == "exact":
            shares = self.table[self._numbers(len(x))]
            gates = [hard_gate(part(x)) * shares[:, place, None] for place, part in enumerate(self.parts)]
            return add_gated(nothing, self.groups, x, torch.cat(gates, 1))
        logits = self.block.gate(x)[0]
        weights, index = self.chosen(x, logits, *self.choose(x, logits))
        first = self.first
        for group in self.groups:
            add = add_gathered if asks_device(group, x.device) else add_columns
            nothing = add(nothing, group, x, index - first, weights)
            first += group.num_experts
        return nothing

    def for_base(self, hidden_states: Tensor, router_logits: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        """Weights and experts [T, k] for the base's experts: slots that new experts win have the weight zero."""
        weights, index = self.choose(hidden_states, router_logits, **more)
        shares, ids = self.chosen(hidden_states, router_logits, weights, index)
        won = ids >= self.first
        return shares.masked_fill(won, 0).to(weights.dtype), torch.where(won, 0, ids).to(index.dtype)

    def chosen(self, x: Tensor, logits: Tensor, weights: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and experts [T, k] of the base's choice and the new experts."""
        parts, numbers = self.parts, self._numbers(len(x))
        index = index.long()
        if self.mode == "slot":
            lacks = self.table[numbers] == 0
            leads = [
                part(x).masked_fill(lacks[:, place, None], -torch.inf) for place, part in enumerate(parts)
            ]
            parents = [parent for part in parts for parent in part.parents]
            return slot_choice(
                weights, index, torch.cat(leads, 1), parents, [False] * len(parents), self.first
            )
        found = weights, index
        for number, row in enumerate(self.rows.tolist()):
            own = [part for part, share in zip(parts, row, strict=True) if share]
            if not own:
                continue
            new = torch.cat([part(x) for part in own], 1)
            parents = [parent for part in own for parent in part.parents]
            assert self.how is not None
            ids, shares = paper_choice(self.how, logits, new, weights, index, parents, own)
            mine = (numbers == number)[:, None]
            among = held(self._ids(own), ids.device)[ids]
            found = torch.where(mine, shares.to(weights.dtype), found[0]), torch.where(mine, among, found[1])
        return found

    def _ids(self, own: list[Any]) -> list[int]:
        """Expert among those of some extensions -> its id among all."""
        found, start = list(range(self.first)), self.first
        for part in self.parts:
            if part in own:
                found += range(start, start + part.count)
            start += part.count
        return found

    def _numbers(self, tokens: int) -> Tensor:
        """[T]: number of each token's model."""
        layer: Any = self.adapted.o_proj
        if not hasattr(layer, "punica_wrapper"):  # vLLM measures memory before it makes adapters
            return torch.zeros(tokens, dtype=torch.long, device=self.table.device)
        slots = layer.punica_wrapper._token_lora_indices[:tokens]
        codes, marks = layer.lora_a_stacked[0][:, 0, :2, 0].float().unbind(1)
        numbers = torch.where(marks == MARK, codes * SCALE, 0).round().long()
        return torch.where(slots < 0, 0, numbers[slots.clamp(min=0)])
