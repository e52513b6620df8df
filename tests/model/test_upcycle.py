"""Upcycling: exact equality, copied settings, and refused models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import moextend
from moextend import MultimodalLM
from moextend.errors import InputError
from moextend.model.upcycling import SUPPORTED, upcycle_lm
from tests.model.dense import dense_lm
from tests.toys import WORDS, ToyEncoder, toy_tokenizer

YARN = {
    "rope_type": "yarn",
    "rope_theta": 5e5,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
GRANITE = {
    "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.1,
}  # fmt: skip
WINDOW = {"use_sliding_window": True, "sliding_window": 6}
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("llama", {}, "Mixtral"),
    "llama, attention bias": ("llama", {"attention_bias": True}, "GraniteMoe"),
    "llama, tied, wide heads": ("llama", {"tie_word_embeddings": True, "head_dim": 12}, "Mixtral"),
    "llama, yarn": ("llama", {"rope_parameters": YARN, "hidden_act": "gelu"}, "Mixtral"),
    "mistral, window": ("mistral", {"sliding_window": 6}, "Mixtral"),
    "granite": ("granite", {"attention_bias": True, **GRANITE}, "GraniteMoe"),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, "Qwen2Moe"),
    "qwen2, window in some layers": ("qwen2", {**WINDOW, "max_window_layers": 1}, "Qwen2Moe"),
    "qwen3": ("qwen3", {"head_dim": 12}, "Qwen3Moe"),
    "qwen3, bias, window": (
        "qwen3",
        {"head_dim": 12, "attention_bias": True, **WINDOW, "max_window_layers": 0},
        "Qwen3Moe",
    ),
    "olmo2": ("olmo2", {"attention_bias": True}, "FlexOlmo"),
}


@torch.no_grad()
def logits(lm: Any, ids: Tensor) -> Tensor:
    found: Tensor = lm(ids).logits
    return found


@pytest.fixture
def long_ids() -> Tensor:
    return torch.randint(4, len(WORDS), (2, 40), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("case", CASES)
def test_the_moe_model_computes_what_the_dense_one_does(case: str, long_ids: Tensor, tmp_path: Path) -> None:
    family, more, kind = CASES[case]
    dense = dense_lm(family, **more)
    moe = upcycle_lm(dense, experts=4, top_k=2)
    assert type(moe).__name__ == f"{kind}ForCausalLM" and type(moe).__module__.startswith("transformers.")
    expected = logits(dense, long_ids)
    # Two float32 weights, each rounded once, sum to 1 within 1.2e-7; three layers and a head amplify that.
    torch.testing.assert_close(
        logits(moe, long_ids), expected, rtol=0, atol=2e-6 * float(expected.abs().max())
    )
    moe.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    again.set_experts_implementation("eager")
    assert torch.equal(logits(again, long_ids), logits(moe, long_ids))
    ask: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    assert torch.equal(again.generate(long_ids[:1], **ask), dense.generate(long_ids[:1], **ask))


@pytest.mark.parametrize("case", ["llama", "granite", "qwen2", "qwen3", "olmo2"])
def test_every_counterpart_is_extended_without_a_change(case: str, long_ids: Tensor) -> None:
    family, more, _ = CASES[case]
    moe = upcycle_lm(dense_lm(family, **more), experts=4, top_k=2)
    base = logits(moe, long_ids)
    moextend.attach(moe, "new", {0: [1], 2: [0, 3]}, mode="exact")
    assert torch.equal(logits(moe, long_ids), base)


def test_every_counterpart_has_a_case() -> None:
    assert {family for family, _, _ in CASES.values()} == set(SUPPORTED)


def test_the_dense_model_is_kept_or_given_away() -> None:
    dense = dense_lm(tie_word_embeddings=True)
    before = {name: p.clone() for name, p in dense.named_parameters()}
    seen: list[tuple[int, int]] = []
    kept = upcycle_lm(dense, experts=2, on_layer=lambda *now: seen.append(now))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with torch.no_grad():
        for parameter in kept.parameters():
            parameter.zero_()
    assert all(torch.equal(p, before[name]) for name, p in dense.named_parameters())
    given = upcycle_lm(dense, experts=2, keep_dense=False)
    assert given.model.embed_tokens.weight.data_ptr() == dense.model.embed_tokens.weight.data_ptr()
    assert given.lm_head.weight is given.model.embed_tokens.weight
    assert not any(".mlp." in name for name, _ in dense.named_parameters())


def test_an_upcycled_base_is_loaded_extended_and_named_like_any_other(tmp_path: Path, ids: Tensor) -> None:
    dense = MultimodalLM(dense_lm(), toy_tokenizer(), {"image": ToyEncoder()})
    made = moextend.upcycle(dense, experts=4, top_k=2)
    ours, theirs = made.modalities["image"], dense.modalities["image"]
    assert ours.encoder is theirs.encoder and made.base_fingerprint() != dense.base_fingerprint()
    assert torch.equal(ours.projector.inner.weight, theirs.projector.inner.weight)
    moextend.save_base(made, tmp_path / "moe")
    again = moextend.load(str(tmp_path / "moe"))
    assert again.base_fingerprint() == made.base_fingerprint().split("-")[0]
    base = logits(again.lm, ids)
    moextend.attach(again.lm, "new", {0: [1], 2: [3]})
    assert torch.equal(logits(again.lm, ids), base)
    with pytest.raises(InputError, match="is extended"):
        moextend.save_base(again, tmp_path / "extended")
    with pytest.raises(InputError, match="already exists"):
        moextend.save_base(made, tmp_path / "moe")


@pytest.mark.parametrize(
    ("family", "more", "reason"),
    [
        ("llama", {"mlp_bias": True}, "MLPs have biases"),
        ("granite", {"mlp_bias": True}, "MLPs have biases"),
        ("qwen3", {**WINDOW, "max_window_layers": 1, "head_dim": 8}, "one kind of attention"),
        ("mixtral", {}, "has experts already"),
        ("stablelm", {}, "no MoE class is known"),
    ],
)
def test_what_has_no_counterpart_is_refused(family: str, more: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        upcycle_lm(dense_lm(family, **more), experts=4)
    assert error.value.hint == (
        "Supported: granite, llama, mistral, olmo2, qwen2, qwen3; none with biases in its MLPs."
    )


def test_quantised_weights_are_refused() -> None:
    dense = dense_lm()
    weight = dense.model.layers[0].mlp.up_proj.weight
    dense.model.layers[0].mlp.up_proj.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(InputError, match="quantised"):
        upcycle_lm(dense, experts=4)


def test_numbers_that_do_not_fit_are_refused() -> None:
    for experts, top_k in ((1, 1), (4, 0)):
        with pytest.raises(InputError, match="are not possible"):
            upcycle_lm(dense_lm(), experts=experts, top_k=top_k)
