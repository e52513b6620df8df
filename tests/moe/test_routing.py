"""Both routing modes against independent implementations of their equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moextend import activate, attach, detach, new_parameters
from moextend.moe.attach import scope_of
from moextend.moe.paper_routing import merged_softmax
from moextend.moe.recipe import Mode
from moextend.moe.router_parts import Calibration
from moextend.moe.routing import HardGate
from moextend.moe.sites import find_sites
from tests.toys import toy_lm

FAMILIES = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "granitemoe"]


def logits(lm: torch.nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = lm(ids).logits
    return found


def shake(lm: torch.nn.Module, name: str, size: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in new_parameters(lm, name).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernel", ["eager", "grouped_mm"])
def test_exact_equals_the_base_before_training(family: str, kernel: str, ids: Tensor) -> None:
    lm = toy_lm(family)
    lm.set_experts_implementation(kernel)
    base = logits(lm, ids)
    attach(lm, "a", {0: [1], 2: [0, 3]})
    assert torch.equal(logits(lm, ids), base)
    attach(lm, "b", {1: [2]})
    assert torch.equal(logits(lm, ids), base)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_base_returns_when_extensions_are_off_or_gone(family: str, mode: Mode, ids: Tensor) -> None:
    lm = toy_lm(family)
    base, kinds = logits(lm, ids), {name: type(m) for name, m in lm.named_modules()}
    attach(lm, "a", {0: [1], 1: [1], 2: [0]}, mode=mode)
    shake(lm, "a")
    assert not torch.equal(logits(lm, ids), base)
    activate(lm, [])
    assert torch.equal(logits(lm, ids), base)
    activate(lm, ["a"])
    detach(lm, "a")
    assert torch.equal(logits(lm, ids), base)
    assert {name: type(m) for name, m in lm.named_modules()} == kinds


def test_exact_gate_matches_a_plain_loop(ids: Tensor) -> None:
    lm = toy_lm()
    attach(lm, "a", {1: [1, 2]})
    shake(lm, "a")
    site: Any = find_sites(lm)[1]
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(3))
    part, group = site.router.ext_parts["a"], site.experts.ext_groups["a"]
    with torch.no_grad():
        out = site.experts(x, *reversed(site.router(x)[1:]))
        activate(lm, [])
        expected = site.experts(x, *reversed(site.router(x)[1:]))
        for t in range(len(x)):
            for e in range(2):
                gate = min(max(float(part.rows[e] @ x[t] + part.bias[e]), 0.0), 1.0)
                a, b = (group.gate_up_proj[e] @ x[t]).chunk(2)
                expected[t] += gate * (group.down_proj[e] @ (F.silu(a) * b))
    assert torch.allclose(out, expected, atol=1e-5)


def test_a_token_with_closed_gates_is_the_base_bit_for_bit(ids: Tensor) -> None:
    lm = toy_lm()
    base = logits(lm, ids)
    attach(lm, "a", {0: [1], 1: [1], 2: [1]})
    shake(lm, "a")
    with torch.no_grad():
        sites: list[Any] = list(find_sites(lm))
        for site in sites:
            site.router.ext_parts["a"].rows.zero_()
            site.router.ext_parts["a"].bias.fill_(-0.01)
    assert torch.equal(logits(lm, ids), base)


def test_the_hard_gate_passes_gradients_that_bring_it_back() -> None:
    gate = torch.tensor([-1.0, -1.0, 0.5, 2.0, 2.0], requires_grad=True)
    push = torch.tensor([1.0, -1.0, 3.0, -1.0, 1.0])
    opened: Tensor = HardGate.apply(gate)  # type: ignore[no-untyped-call]
    (opened * push).sum().backward()
    assert gate.grad is not None
    assert gate.grad.tolist() == [0.0, -1.0, 3.0, 0.0, 1.0]


def paper_weights(
    x: Tensor, rows: Tensor, parts: list[tuple[Tensor, Calibration]], k: int, normalise: bool
) -> list[dict[int, float]]:
    """The equations of the paper's mode, one token at a time: expert -> weight."""
    found = []
    for token in x:
        every = torch.cat([rows, *(r for r, _ in parts)])
        p = torch.softmax(every @ token, 0)
        total, width = p.clone(), len(rows)
        for new, calibration in parts:
            width += len(new)
            inner = F.gelu(calibration.inner.weight @ p[:width])
            total[:width] += calibration.outer.weight @ inner
        chosen = p.topk(k)[1]
        if normalise:
            w = p[chosen] / p[chosen].sum() + (total - p)[chosen] / p[chosen].sum()
            w = w.clamp_min(1e-6)
            w = w / w.sum()
        else:
            w = total[chosen].clamp_min(1e-6)
        found.append({int(e): float(v) for e, v in zip(chosen, w, strict=True)})
    return found


@pytest.mark.parametrize("family", ["mixtral", "olmoe"])
def test_paper_mode_equals_the_equations(family: str) -> None:
    lm = toy_lm(family)
    attach(lm, "a", {1: [1]}, mode="paper")
    shake(lm, "a")
    attach(lm, "b", {1: [2]}, mode="paper")
    shake(lm, "b", 0.2)
    router: Any = find_sites(lm)[1].router
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(4))
    parts = [(router.ext_parts[n].rows, router.ext_parts[n].calibration) for n in "ab"]
    with torch.no_grad():
        _, weights, index = router(x)[:3]
        expected = paper_weights(x, router.weight, parts, 2, normalise=family == "mixtral")
    for t in range(len(x)):
        found = {int(e): float(w) for e, w in zip(index[t], weights[t], strict=True)}
        assert found.keys() == expected[t].keys()
        for expert, weight in expected[t].items():
            assert found[expert] == pytest.approx(weight, abs=2e-5)
    assert any(int(e) >= 4 for e in index.flatten()), "no token chose a new expert: the test shows nothing"


def test_paper_mode_copies_expert_and_row() -> None:
    lm = toy_lm()
    attach(lm, "a", {0: [3]}, mode="paper")
    site: Any = find_sites(lm)[0]
    assert torch.equal(site.router.ext_parts["a"].rows[0], site.router.weight[3])
    assert torch.equal(site.experts.ext_groups["a"].down_proj[0], site.experts.down_proj[3])
    assert torch.equal(site.experts.ext_groups["a"].gate_up_proj[0], site.experts.gate_up_proj[3])


def test_paper_mode_output_is_the_weighted_sum_of_the_chosen_experts(ids: Tensor) -> None:
    lm = toy_lm()
    attach(lm, "a", {0: [1]}, mode="paper")
    shake(lm, "a")
    site: Any = find_sites(lm)[0]
    x = torch.randn(30, 32, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        _, weights, index = site.router(x)[:3]
        out = site.experts(x, index, weights)
        own, new = site.experts, site.experts.ext_groups["a"]
        expected = torch.zeros_like(x)
        for t in range(len(x)):
            for e, w in zip(index[t], weights[t], strict=True):
                home, place = (own, int(e)) if e < 4 else (new, int(e) - 4)
                a, b = (home.gate_up_proj[place] @ x[t]).chunk(2)
                expected[t] += w * (home.down_proj[place] @ (F.silu(a) * b))
    assert torch.allclose(out, expected, atol=1e-5)


def test_merged_softmax_is_the_softmax_over_all() -> None:
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(9, 4, generator=generator), torch.randn(9, 2, generator=generator)
    scores, share = merged_softmax(old, new)
    assert torch.allclose(scores, torch.cat([old, new], 1).softmax(-1), atol=1e-6)
    assert torch.allclose(share[:, 0], scores[:, :4].sum(-1), atol=1e-6)
    far, one = merged_softmax(old, torch.full((9, 1), -1e9))
    assert torch.equal(far[:, :4], old.softmax(-1)) and torch.equal(one, torch.ones(9, 1))


def test_calibration_starts_as_nothing_and_has_correct_gradients() -> None:
    calibration = Calibration(5).double()
    weights = torch.rand(6, 5, dtype=torch.float64).softmax(-1)
    assert torch.equal(calibration(weights), torch.zeros(6, 5, dtype=torch.float64))
    torch.nn.init.normal_(calibration.outer.weight)
    assert torch.autograd.gradcheck(calibration, (weights.requires_grad_(),))


def test_scope_keeps_extensions_apart(ids: Tensor) -> None:
    """scope own: what another extension has learned does not reach this one."""
    lm = toy_lm()
    attach(lm, "a", {0: [1], 1: [1], 2: [1]})
    shake(lm, "a")
    alone = logits(lm, ids)
    activate(lm, [])
    attach(lm, "b", {0: [2], 1: [2], 2: [2]})
    shake(lm, "b")
    activate(lm, ["a"])
    assert torch.equal(logits(lm, ids), alone)
    activate(lm, ["a", "b"])
    assert scope_of(lm).active == ("a", "b")
    assert not torch.equal(logits(lm, ids), alone)
