"""What the plug-in adds to a block, without vLLM: a stand-in for its block computes as the one of transformers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from moextend.export.served import MARK, RANK, SCALE, Served
from moextend.moe import attach
from moextend.moe.recipe import Mode
from moextend.moe.routing import Scope, only
from moextend.moe.sites import Site, find_sites
from moextend.vllm.blocks import Added, extend_block

from . import small


class Router:
    """A router of vLLM: weights and experts from logits."""

    def __init__(self, router: nn.Module, scope: Scope) -> None:
        self.router, self.scope = router, scope

    def select_experts(self, hidden_states: Tensor, router_logits: Tensor) -> tuple[Tensor, Tensor]:
        with only(self.scope, ()):
            _, weights, index = self.router(hidden_states)
        return weights, index.to(torch.int32)


class Block(nn.Module):
    """A block of vLLM: a gate, and experts with a router."""

    router: Any
    base: Any
    experts: Any
    scope: Scope

    def __init__(self, site: Site, scope: Scope) -> None:
        super().__init__()
        self.__dict__.update(router=site.router, base=site.experts, scope=scope)
        self.weight = nn.Parameter(torch.zeros(1))  # for its device and type
        self.experts = nn.Module()
        self.experts.router = Router(site.router, scope)

    def gate(self, x: Tensor) -> tuple[Tensor, None]:
        with only(self.scope, ()):
            return self.router(x)[0], None

    def forward(self, hidden_states: Tensor) -> Tensor:
        weights, index = self.experts.router.select_experts(hidden_states, self.gate(hidden_states)[0])
        with only(self.scope, ()):
            out: Tensor = self.base(hidden_states, index.long(), weights)
        return out


@pytest.mark.parametrize(
    ("family", "mode"), [*(("mixtral", mode) for mode in get_args(Mode)), ("olmoe", "paper")]
)
def test_every_token_gets_the_extensions_of_its_request(family: str, mode: Mode, tmp_path: Path) -> None:
    small.made_base(family, tmp_path)
    model, more = small.extended(tmp_path, mode), {"two": 0.5 if mode == "exact" else 1.0, "three": 1.0}
    models = {name: {name: 1.0} for name in small.NAMES} | {"two": {"one": 1.0, "two": 1.0}, "both": more}
    own = dict.fromkeys(small.NAMES, "")
    served, scope = Served(mode=mode, extensions=own, coactive={}, models=models), attach.scope_of(model.lm)
    x = torch.randn(64, model.width, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(64) % (len(served.models) + 1)
    # Adapters lie in slots in any order; a request of the base has the slot -1.
    slots = torch.where(numbers > 0, len(served.models) - numbers, -1)
    held = torch.zeros(len(served.models) + 1, 1, RANK, 4)
    held[:-1, 0, 0] = torch.arange(len(served.models), 0, -1)[:, None] / SCALE
    held[:-1, 0, 1] = MARK
    held[-1] = 0.01  # an adapter of somebody else: the base computes
    slots[numbers == 0] = torch.tensor([-1, len(served.models)])[torch.arange(int((numbers == 0).sum())) % 2]
    o_proj = SimpleNamespace(
        punica_wrapper=SimpleNamespace(_token_lora_indices=slots), lora_a_stacked=(held.bfloat16(),)
    )
    site = find_sites(model.lm)[2]
    wanted = torch.empty_like(x)
    for number, active in enumerate([{}, *served.models.values()]):
        attach.activate(model.lm, active)
        wanted[numbers == number] = site.block(x[None, numbers == number])[0]
    assert len({row.sum().item() for row in wanted}) == 64
    block, router = Block(site, scope), site.router
    groups: Any = site.experts.ext_groups
    adapted: Any = SimpleNamespace(o_proj=o_proj)
    extend_block(block, Added("block", block, router, groups, adapted, served))
    # Products of more rows at a time have other last bits on some processors.
    torch.testing.assert_close(block(x), wanted, rtol=0, atol=1e-5)
