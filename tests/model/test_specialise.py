"""Experts of an upcycled model become different."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moextend import Conversation
from moextend.errors import InputError
from moextend.extension.specialise import cut, redraw, specialise
from moextend.model.upcycling import upcycle
from moextend.moe.sites import find_sites
from tests.model.dense import dense_model
from tests.toys import toy_tokenizer


def stories(count: int = 60) -> list[str]:
    """Texts in which the next word follows from the last one."""
    return [" ".join(f"w{(start + 7 * i) % 60}" for i in range(20)) for start in range(count)]


def test_specialising_makes_experts_different_and_learns(tmp_path: Path) -> None:
    model = upcycle(dense_model(), experts=4, top_k=2)
    name = model.base_fingerprint()
    others = {
        key: p.clone()
        for key, p in model.named_parameters()
        if ".experts." not in key and not key.endswith("gate.weight")
    }
    done = specialise(
        model, stories(), 40, folder=tmp_path / "t", learning_rate=3e-3, length=16, batch_size=16, seed=1
    )
    for site in find_sites(model.lm):
        down = site.experts.get_parameter("down_proj")
        assert not any(torch.equal(down[0], other) for other in down[1:])
    assert done.after < done.before - 0.3 and done.steps == 40
    assert all(torch.equal(model.get_parameter(key), value) for key, value in others.items())
    assert done.trained_parameters == sum(p.numel() for p in model.lm.parameters()) - sum(
        p.numel() for key, p in others.items() if key.startswith("lm.")
    )
    assert not model.trainable() and model.base_fingerprint() != name
    assert not any(site.router._forward_hooks for site in find_sites(model.lm))


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=10)
def test_a_share_of_neurons_is_drawn_again(share: float, seed: int) -> None:
    model = upcycle(dense_model(), experts=3)
    before = [site.experts.get_parameter("down_proj").clone() for site in find_sites(model.lm)]
    redraw(model, share, seed)
    for site, old in zip(find_sites(model.lm), before, strict=True):
        changed = (site.experts.get_parameter("down_proj") != old).any(dim=1)
        assert changed.sum(dim=1).tolist() == [round(share * 24)] * 3


def test_pieces_are_the_text_without_end_tokens() -> None:
    pieces = cut(toy_tokenizer(), ["w1 w2 w3  w4 w5", "", "w9"], 2)
    assert [piece.turns[0][1] for piece in pieces] == ["w1 w2", "w3  w4", "w5", "w9"]
    assert pieces[0] == Conversation((("", "w1 w2"),), closed=False)


@pytest.mark.parametrize(
    ("texts", "share", "reason"), [(["w1"], 0.5, "not enough"), (["w1 w2"], 1.5, "share")]
)
def test_specialising_without_text_is_refused(
    texts: list[str], share: float, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        specialise(upcycle(dense_model(), experts=2), texts, 1, folder=tmp_path, share=share)
