"""Both routing modes against independent implementations of their equations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moextend import activate, attach
from moextend.moe.competing import merged_softmax
from moextend.moe.router_parts import Calibration
from moextend.moe.routing import HardGate
from moextend.moe.sites import find_sites
from tests.toys import logits, shake, toy_lm


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
