"""Estimates from shapes: what they depend on. tests/bench/run/test_budget.py compares them with measurements."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import moextend
from moextend.errors import InputError
from moextend.model import loading
from moextend.moe.constants import held
from moextend.moe.sites import count_chosen, count_experts, find_sites
from moextend.training import tracing
from moextend.training.estimate import STATE, answering, cast, learn_only, size_of, training
from moextend.training.tracing import Step
from tests.moe.toy_families import class_of, config_of

STEP = Step(8, 64, 32, bf16=False)


def base(*learns: str, layers: int = 4, dtype: torch.dtype = torch.float32) -> Any:
    """The tiny base with another number of layers, on device meta; parameters with these in their names learn."""
    config = loading.skeleton("tiny").config
    config.num_hidden_layers = layers
    with torch.device("meta"):
        lm = cast(AutoModelForCausalLM.from_config(config), dtype)
    learn_only(lm, [p for name, p in lm.named_parameters() if any(part in name for part in learns)])
    return lm


def test_what_learns_has_states_and_the_rest_is_frozen() -> None:
    whole, upper = training(base(""), STEP), training(base("layers.3."), STEP)
    parameters = size_of(base()).total
    assert whole.learns == parameters and whole.states == STATE * parameters and whole.frozen == 0
    assert upper.frozen == 4 * (parameters - upper.learns) and upper.peak < whole.peak
    assert upper.operations < 0.6 * whole.operations, "no gradients below the lowest layer that learns"
    deep = training(base("layers.0."), STEP)
    assert deep.operations > 1.3 * upper.operations and deep.working > 2 * upper.working


@pytest.mark.long  # 6 s
def test_layers_that_are_not_run_count_as_much_as_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for learns in ("", "layers.0.", "gate.weight"):
        short = training(base(learns, layers=9), STEP)
        monkeypatch.setattr(tracing, "LOWEST", 99)
        monkeypatch.setattr(tracing, "FEWEST", 99)
        full = training(base(learns, layers=9), STEP)
        monkeypatch.undo()
        assert short.operations == pytest.approx(full.operations, rel=1e-9)
        assert short.peak == pytest.approx(full.peak, rel=0.01)


def test_checkpointing_keeps_less_and_computes_more() -> None:
    plain, again = (training(base("", layers=8), replace(STEP, checkpointing=on)) for on in (False, True))
    assert again.working < 0.5 * plain.working and again.operations > 1.2 * plain.operations


def test_number_types_count() -> None:
    plain = training(base("layers.3.", dtype=torch.bfloat16), replace(STEP, bf16=True))
    wide = training(base("layers.3."), replace(STEP, bf16=True))
    assert wide.frozen == 2 * plain.frozen and wide.working > plain.working, "copies for products in bfloat16"
    assert plain.states == wide.states, "what learns is float32"
    narrow, full = answering(base(dtype=torch.bfloat16), 4, 32, 8), answering(base(), 4, 32, 8)
    config = base().config
    heads = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    assert full.cache_a_token == 2 * config.num_hidden_layers * heads * 4 == 2 * narrow.cache_a_token
    assert full.weights == 2 * narrow.weights and full.a_token == narrow.a_token


def test_accumulation_holds_gradients_during_the_pass_and_inputs_that_learn_reach_every_layer() -> None:
    plain, more = (training(base(""), replace(STEP, accumulated=on)) for on in (False, True))
    assert more.working > plain.working and more.operations == plain.operations
    alone = training(base(), STEP, inputs=True)
    assert alone.learns == 0 and 0.5 * plain.operations < alone.operations < plain.operations


def test_answers_cost_what_their_tokens_do_and_batches_their_adapters() -> None:
    found = answering(base(), 4, 32, 8)
    assert found.a_call == 0, "nothing but tokens"
    assert found.operations(8, 32, 8, batch=4) == pytest.approx(8 * (39 * found.a_token + 8 * found.head))
    own = replace(found, a_call=1e6)
    assert own.operations(8, 32, 8, batch=4) - found.operations(8, 32, 8, batch=4) == pytest.approx(
        2 * 8 * 1e6
    )


@pytest.mark.long  # 6 s
def test_extensions_are_traced_in_every_routing() -> None:
    real = held([0], torch.device("cpu"))  # of an earlier pass with data: a traced one cannot use it
    for mode in ("exact", "paper", "slot"):
        lm = base()
        moextend.attach(lm, "a", {2: [0], 3: [0]}, mode=mode, width=0.5 if mode == "exact" else 1.0)
        learn_only(lm, moextend.new_parameters(lm, "a").values())
        found = training(copy.deepcopy(lm), STEP)
        assert found.learns == sum(p.numel() for p in moextend.new_parameters(lm, "a").values())
        assert found.operations > training(base(), replace(STEP, rows=4), inputs=True).operations
    assert held([0], torch.device("cpu")) is real


def test_a_model_that_cannot_be_traced_is_one_clear_error() -> None:
    lm = base("")
    lm.model.forward = lambda **_: torch.zeros(3).nonzero().tolist()
    with pytest.raises(InputError, match=r"model \w+ForCausalLM: cannot be estimated: "):
        training(lm, STEP)


@pytest.mark.parametrize("family", ["mixtral", "gemma4_text", "longcat_flash"])
def test_tokens_use_as_many_experts_as_the_family_says(family: str) -> None:
    with torch.device("meta"):
        lm = class_of(config_of(family))(config_of(family))
    sites = find_sites(lm)
    stacks = [p for site in sites for p in site.experts.parameters(recurse=False) if p.dim() == 3]
    assert [(count_chosen(site), count_experts(site)) for site in sites] == [(2, 4)] * len(sites)
    found = size_of(lm)
    assert found.total - found.active == sum(p.numel() for p in stacks) // 2


@pytest.mark.parametrize(
    "family", ["olmoe", "qwen2_moe", "gpt_oss", "llama4_text", "granitemoe", "deepseek_v3"]
)
def test_families_are_traced(family: str) -> None:
    shape = {
        "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 64, "intermediate_size": 32, "max_position_embeddings": 128,
    }  # fmt: skip
    if family == "deepseek_v3":  # a head has a part with positions and one without, and keys of its own
        shape |= {"num_key_value_heads": 4, "qk_rope_head_dim": 16}
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    learn_only(lm, lm.parameters())
    found = training(cast(lm, torch.float32), Step(2, 32, 8))
    assert found.working > 0 and found.learns == size_of(lm).total
    assert found.operations > 6 * 64 * 64 * 64, "the base is counted"
