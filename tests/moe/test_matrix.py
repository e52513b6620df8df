"""Each way of routing and computing x implementation of experts x routing mode: values and gradients.

Memory that a kernel leaves unwritten reads as not-a-number here, so that a row that is used unwritten shows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moextend import attach, new_parameters
from moextend.moe import routing
from moextend.moe.dense_blocks import dense_weights
from moextend.moe.recipe import Mode
from moextend.moe.sites import Site, find_sites
from tests.moe.test_families import IDS, KINDS_BOTH, everywhere, kernels, lm, use
from tests.toys import shake

__all__ = ["lm"]
EXTENSIONS = {"a": (1, 2), "b": (0,), "c": (1,)}
"""Name -> parents of its new experts: first a group of two experts alone, then groups of one."""


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def caught(lm: Any, sites: list[Site]) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """What the experts of each block are given, (h, index, weights), in a pass that records gradients."""
    found: dict[int, tuple[Tensor, ...]] = {}

    def hook(layer: int) -> Any:
        def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
            found[layer] = (*args, *kwargs.values())

        return keep

    hooks = [s.experts.register_forward_pre_hook(hook(s.layer), with_kwargs=True) for s in sites]
    lm(input_ids=IDS.to(lm.device))
    for one in hooks:
        one.remove()
    return {layer: (h.detach(), index, weights) for layer, (h, index, weights) in found.items()}


def base_kind(experts: nn.Module) -> Any:
    return next(kind for kind in type(experts).__mro__ if kind.__module__.startswith("transformers."))


def in_float64(experts: Any) -> Any:
    """A copy whose every weight is a float64 of its own."""
    twin = copy.deepcopy(experts, {id(experts.config): experts.config} if hasattr(experts, "config") else {})
    twin.__dict__.pop("ext_scope", None)
    return twin.double()


def plain_sum(experts: Any, twin: Any, h: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """The sum over the slots of weight times expert, from every expert's output for every token, in float64.

    Each comes from the eager loop of the family's own class, called for that expert alone.
    """

    def alone(module: Any, expert: int) -> Tensor:
        ids = torch.full((len(h), 2), expert)
        out: Tensor = base_kind(module).forward(
            module, h, ids, torch.eye(2, dtype=h.dtype)[:1].expand(len(h), 2)
        )
        return out

    if hasattr(twin, "_is_expert_parallel"):
        twin._is_expert_parallel = False
    every = [alone(twin, expert) for expert in range(experts.ext_first)]
    for group in twin.ext_groups.values():
        every += [alone(group, expert) for expert in range(group.num_experts)]
    every.append(torch.zeros_like(h))  # no expert
    picked = torch.stack(every, 1).gather(1, index.unsqueeze(-1).expand(-1, -1, h.shape[1]))
    return (picked * weights.unsqueeze(-1)).sum(1)


def near(found: Tensor, expected: Tensor, what: Any, share: float = 2e-4) -> None:
    expected = expected.detach()
    room = share * float(expected.abs().max()) + 1e-6
    error = (found.detach().cpu().double() - expected.double()).abs().max()
    assert error <= room, (what, float(error), room)  # false for not-a-number too


def last_of_each_router(lm: Any) -> list[Site]:
    """The last block of each kind of router."""
    return list({type(site.router): site for site in find_sites(lm)}.values())


def ways(lm: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Each implementation, with slots gathered as on a CPU and, where a GPU would not, without."""
    for kernel in kernels(lm):
        use(lm, kernel)
        yield kernel, "gathered"
        if kernel != "eager":
            with monkeypatch.context() as patch:
                patch.setattr(routing, "asks_device", lambda experts, device: False)
                yield kernel, "on the device"
    use(lm, "eager")


@pytest.mark.parametrize(("name", "mode"), [pair for pair in KINDS_BOTH if pair[0] != "llama4_text"])
def test_values_and_gradients_are_those_of_a_plain_sum(
    name: str, mode: Mode, lm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One extension that learns, a second one that learns while it is active, and three that all learn."""
    reached, sites = False, last_of_each_router(lm)
    for extension, parents in EXTENSIONS.items():
        attach(lm, extension, {site.layer: parents for site in sites}, mode=mode)
        shake(lm, extension)
        if extension == "c":
            for known in EXTENSIONS:
                for parameter in new_parameters(lm, known).values():
                    parameter.requires_grad_(True)
        given = caught(lm, sites)
        for site in sites:
            experts: Any = site.experts
            h, index, weights = given[site.layer]
            h.requires_grad_(True)
            reached |= bool((index >= experts.ext_first).any())
            routed = [p for p in site.router.parameters() if p.requires_grad]
            learning = [n for n, p in experts.named_parameters() if p.requires_grad]
            twin = in_float64(experts)
            pull = torch.randn(h.shape, generator=torch.Generator().manual_seed(4))
            expected = plain_sum(experts, twin, h.double(), index, weights.double())
            wanted = [h, weights, *routed, *map(twin.get_parameter, learning)]
            slopes = torch.autograd.grad(
                expected, wanted, pull.double(), retain_graph=True, materialize_grads=True
            )
            for way in ways(lm, monkeypatch):
                out = experts(h, index, weights)
                near(out, expected, (way, extension, "output"))
                if extension == "c":
                    with torch.no_grad():
                        near(experts(h, index, weights), expected, (way, "names at inference"))
                wanted = [h, weights, *routed, *map(experts.get_parameter, learning)]
                found = torch.autograd.grad(out, wanted, pull, retain_graph=True)
                names = ["h", "weights", *(tuple(p.shape) for p in routed), *learning]
                for one, slope, what in zip(found, slopes, names, strict=True):
                    near(one, slope, (way, extension, what))
    assert reached, "no token reached a new expert: the test shows nothing"


@pytest.mark.parametrize(("name", "mode"), [pair for pair in KINDS_BOTH if pair[0] == "llama4_text"])
def test_experts_that_compute_every_token_are_a_plain_sum_too(name: str, mode: Mode, lm: Any) -> None:
    for extension, parents in EXTENSIONS.items():
        attach(lm, extension, everywhere(lm, *parents), mode=mode)
        shake(lm, extension)
        site = find_sites(lm)[-1]
        block: Any = site.block
        h = torch.randn(9, 32, generator=torch.Generator().manual_seed(3), requires_grad=True)
        shares, logits = block.router(h)
        extra = dense_weights(block.router, h, logits)
        every = torch.cat([shares, extra[:, -sum(p.count for p in routing.reachable(block.router)) :]], 1)
        expected = block.shared_expert(h).double()
        first = 0
        for home in [block.experts, *routing.reachable(block.experts)]:
            for expert in range(home.num_experts):
                x = (h * every[:, first + expert, None]).double()
                gate, up = (x @ home.gate_up_proj[expert].double()).chunk(2, -1)
                expected = expected + (up * block.experts.act_fn(gate)) @ home.down_proj[expert].double()
            first += home.num_experts
        wanted = [h, *(p for m in (site.router, site.experts) for p in m.parameters() if p.requires_grad)]
        pull = torch.randn(h.shape, generator=torch.Generator().manual_seed(4))
        out = block(h)[0].view(h.shape)
        near(out, expected, extension)
        slopes = torch.autograd.grad(expected, wanted, pull.double(), retain_graph=True)
        for one, slope in zip(torch.autograd.grad(out, wanted, pull), slopes, strict=True):
            near(one, slope, extension)
