"""Load balance among new experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moextend import Conversation, MultimodalLM, Settings, attach, new_parameters, train
from moextend.model.batches import Collator
from moextend.moe.balance import balance_loss, watch_balance
from moextend.moe.recipe import Mode
from tests.toys import picture, toy_model

DATA = [Conversation(((f"<image> w{i} w{i + 3}", f"w{i % 3}"),), (picture(i * 20, 9),)) for i in range(12)]


def extended(mode: Mode, plan: dict[int, list[int]], shift: float = 0.0) -> MultimodalLM:
    """`shift` moves the gates or rows of the first new expert away from the others."""
    model = toy_model()
    attach(model.lm, "a", plan, mode=mode)
    scatter(model, "a", shift)
    return model


def scatter(model: MultimodalLM, name: str, shift: float = 0.0) -> None:
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in new_parameters(model.lm, name).items():
            if key.endswith((".rows", ".bias")):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=drawn))
                parameter[0] += shift


def batch_of(model: MultimodalLM, rows: list[Conversation]) -> dict[str, torch.Tensor]:
    return Collator(model.tokenizer, model.modalities)(rows)


@given(st.integers(2, 5), st.integers(1, 20), st.integers(0, 1000))
def test_the_loss_is_that_of_switch_transformers(experts: int, tokens: int, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    shares = torch.rand(tokens, experts, generator=drawn).softmax(-1)
    used = torch.rand(tokens, experts, generator=drawn) < 0.5
    real = torch.rand(tokens, generator=drawn) < 0.7
    rows = [t for t in range(tokens) if real[t] and used[t].any()]
    wanted = 0.0
    if rows:
        f = used[rows].double().sum(0) / used[rows].sum()
        wanted = float(experts * (f * shares[rows].double().mean(0)).sum())
    assert float(balance_loss(shares, used, real)) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("mode", ["exact", "paper", "slot"])
def test_padding_has_no_part_in_it(mode: Mode) -> None:
    model = extended(mode, {0: [1, 0], 2: [2, 3]})
    short, longer = DATA[0], Conversation((("w1 w2 w3 w4 w5 w6 w7 w8 w9 w10", "w1"),))
    with watch_balance(model.lm) as loss, torch.no_grad():
        alone = batch_of(model, [short])
        model(**alone)
        wanted = float(loss(alone["attention_mask"]))
        padded = batch_of(model, [short, longer])
        padded["attention_mask"][1] = 0  # all of the second row is padding now, and most of the first
        model(**padded | {"labels": padded["labels"].index_fill(0, torch.tensor(1), -100)})
        assert float(loss(padded["attention_mask"])) == pytest.approx(wanted, rel=1e-4)
    assert abs(wanted - 1) > 1e-3


@pytest.mark.parametrize("mode", ["exact", "paper", "slot"])
def test_it_is_over_the_new_experts_that_learn_alone(mode: Mode) -> None:
    model = extended(mode, {1: [1, 0]})
    attach(model.lm, "b", {1: [2, 3]}, mode=mode)
    scatter(model, "b")
    with watch_balance(model.lm) as loss:
        batch = batch_of(model, DATA[:4])
        model(**batch)
        loss(batch["attention_mask"]).backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    place = "lm.model.layers.1.mlp.gate.ext_parts.b"
    assert touched == ({f"{place}.rows", f"{place}.bias"} if mode != "paper" else {f"{place}.rows"})
    assert not any(m._forward_hooks for m in model.lm.modules()), "the hooks are gone"


def test_training_with_it_evens_the_use_of_new_experts(tmp_path: Path) -> None:
    def end(factor: float) -> float:
        model = extended("exact", {1: [1, 0]}, shift=-0.6)
        settings = Settings(steps=30, batch_size=12, learning_rate=1e-2, balance=factor)
        train(model, DATA, settings, folder=tmp_path / "t")
        with watch_balance(model.lm) as loss, torch.no_grad():
            batch = batch_of(model, DATA)
            model(**batch)
            return float(loss(batch["attention_mask"]))

    without, with_it = end(0.0), end(1.0)
    assert with_it - 1 < 0.5 * (without - 1)
