"""Slot routing against an independent implementation, and its equality with the base."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moextend import activate, attach, new_parameters, retention_loss
from moextend.moe.competing import REACH, slot_choice
from moextend.moe.sites import find_sites
from tests.moe.test_families import IDS, everywhere
from tests.moe.toy_families import build, outputs
from tests.toys import shake, toy_model


def test_it_learns_from_the_start() -> None:
    lm = build("mixtral")
    base = outputs(lm, IDS)
    for name, parents in (("a", (1, 2)), ("b", (0, 1))):
        attach(lm, name, everywhere(lm, *parents), mode="slot")
    learning = lm(input_ids=IDS)[0]
    assert torch.allclose(learning, base, atol=1e-4)
    learning.square().mean().backward()
    new = new_parameters(lm, "b")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in new.values())
    assert any(p.grad is not None and p.grad.any() for key, p in new.items() if ".ext_groups." in key)


def two_extensions(k: int = 2) -> tuple[torch.nn.Module, Tensor]:
    """Children of parents 1, 2 and of 1, 3, in one block, and router inputs for it."""
    lm = build("mixtral", num_experts_per_tok=k)
    attach(lm, "a", {1: [1, 2]}, mode="slot")
    shake(lm, "a")
    attach(lm, "b", {1: [1, 3]}, mode="slot")
    shake(lm, "b", seed=6)
    return lm, torch.randn(60, 32, generator=torch.Generator().manual_seed(3))


def expert(site: Any, which: int, x: Tensor) -> Tensor:
    """What expert `which` (base 0 to 3, a's 4 and 5, b's 6 and 7) makes of one token."""
    home = site.experts if which < 4 else site.experts.ext_groups["ab"[(which - 4) // 2]]
    place = which if which < 4 else (which - 4) % 2
    a, b = (home.gate_up_proj[place] @ x).chunk(2)
    out: Tensor = home.down_proj[place] @ (F.silu(a) * b)
    return out


def test_it_equals_a_plain_loop_and_k_experts_stay_active(k: int = 3) -> None:
    lm, x = two_extensions(k)
    site = find_sites(lm)[1]
    router: Any = site.router
    rows, children = router.weight, {1: [4, 6], 2: [5], 3: [7]}
    parts = [router.ext_parts[name] for name in "ab"]
    delta, bias = torch.cat([p.rows for p in parts]), torch.cat([p.bias for p in parts])
    with torch.no_grad():
        _, weights, index = router(x)
        out = site.experts(x, index, weights)
        assert index.shape == weights.shape == (60, k)
        for t in range(len(x)):
            best = (rows @ x[t]).topk(k)
            expected, shares = torch.zeros(32), best.values.softmax(0)
            for place, parent in enumerate(best.indices.tolist()):
                winner, most = parent, 0.0
                for child in children.get(parent, []):
                    full = (rows[parent] + delta[child - 4]) @ x[t] + bias[child - 4]
                    lead = float(full - rows[parent] @ x[t])
                    if lead > most:
                        winner, most = child, lead
                assert int(index[t, place]) == winner
                expected += shares[place] * expert(site, winner, x[t])
            assert torch.allclose(out[t], expected, atol=1e-5)
        activate(lm, [])
        assert torch.equal(router(x)[1], weights), "slots keep their weights"
    assert {4, 5, 6, 7} <= set(index.flatten().tolist()), "a child won nowhere: the test shows nothing"


def test_gradients_of_rows_are_those_of_the_difference_that_a_child_makes() -> None:
    """The straight-through gradient of a lead is weight * <dL/dout, child(x) - what it competes with>."""
    lm, x = two_extensions()
    site: Any = find_sites(lm)[1]
    pull = torch.randn(60, 32, generator=torch.Generator().manual_seed(4))
    _, weights, index = site.router(x)
    (site.experts(x, index, weights) * pull).sum().backward()
    part = site.router.ext_parts["b"]
    with torch.no_grad():
        base_index = torch.topk(x @ site.router.weight.T, 2)[1]
        shares = torch.softmax((x @ site.router.weight.T).gather(1, base_index), -1)
        earlier = site.router.ext_parts["a"](x)
        expected = torch.zeros(2)
        for t in range(len(x)):
            for place in range(2):
                parent = int(base_index[t, place])
                if parent not in (1, 3):
                    continue
                column = 0 if parent == 1 else 1
                beaten, bar = parent, 0.0
                if parent == 1 and earlier[t, 0] > 0:
                    beaten, bar = 4, float(earlier[t, 0])
                lead = float(part(x[t])[column]) - bar
                gain = shares[t, place] * (
                    pull[t] @ (expert(site, 6 + column, x[t]) - expert(site, beaten, x[t]))
                )
                if not ((lead >= REACH and gain < 0) or (lead <= -REACH and gain > 0)):
                    expected[column] += gain
    assert torch.allclose(part.bias.grad, expected, rtol=1e-3, atol=1e-4)
    assert site.router.ext_parts["a"].bias.grad is None


def test_a_tie_is_the_parents_until_a_child_learns() -> None:
    weights, index = torch.tensor([[0.7, 0.3]]), torch.tensor([[1, 0]])
    leads = torch.zeros(1, 2)
    for learns, ids, shares in (
        ([False, False], [[1, 0]], [[0.7, 0.3]]),
        ([False, True], [[1, 0, 5]], [[0.0, 0.3, 0.7]]),
        ([True, True], [[1, 0, 4, 6]], [[0.0, 0.3, 0.7, 0.0]]),
    ):
        weights_now, index_now = slot_choice(weights, index, leads, [1, 1], learns, 4)
        assert index_now.tolist() == ids
        assert torch.equal(weights_now, torch.tensor(shares))


def test_memory_uses_only_tokens_whose_slots_a_child_could_win() -> None:
    model = toy_model()
    attach(model.lm, "a", {1: [1, 3]}, mode="slot")
    shake(model.lm, "a")
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    router: Any = find_sites(model.lm)[1].router
    loss = retention_loss(model, "a", {1: x}, margin=0.25, weight=2.0, sample=40, seed=1)
    drawn = torch.randint(40, (40,), generator=torch.Generator().manual_seed(1))
    total = 0.0
    with torch.no_grad():
        for i in drawn.tolist():
            chosen = (router.weight @ x[i]).topk(2)[1].tolist()
            leads = router.ext_parts["a"](x[i])
            total += sum(
                max(float(leads[j]) + 0.25, 0.0) for j, parent in enumerate((1, 3)) if parent in chosen
            )
    found = loss({}, {})
    found.backward()
    assert float(found.detach()) == pytest.approx(2.0 * total / 80, rel=1e-4)
    assert router.ext_parts["a"].rows.grad.isfinite().all()
