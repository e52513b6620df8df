"""Estimates from shapes: what they depend on. tests/bench/run/test_estimate.py compares them with measurements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from moextend.model import loading
from moextend.training import flops
from moextend.training.estimate import STATE, Estimator, Step, bytes_of
from tests.moe.toy_families import class_of, config_of

STEP = Step(8, 64, 32, bf16=False)


def base(*learns: str, layers: int = 4, dtype: torch.dtype = torch.float32) -> Estimator:
    """The tiny base with another number of layers; parameters with these in their names learn."""
    config = loading.skeleton("tiny").config
    config.num_hidden_layers = layers
    with torch.device("meta"):
        found = Estimator(AutoModelForCausalLM.from_config(config), dtype)
    found.learn_only(p for name, p in found.lm.named_parameters() if any(part in name for part in learns))
    return found


def test_what_learns_has_states_and_the_rest_is_frozen() -> None:
    whole, upper, deep = (base(learns).training(STEP) for learns in ("", "layers.3.", "layers.0."))
    parameters = base().lm.num_parameters()
    assert whole.learns == parameters and whole.states == STATE * parameters and whole.frozen == 0
    assert upper.frozen == 4 * (parameters - upper.learns)
    assert upper.operations < 0.6 * whole.operations, "no gradients below the lowest layer that learns"
    assert deep.operations > 1.3 * upper.operations and deep.working > 2 * upper.working


def test_settings_of_a_step_change_what_it_takes() -> None:
    deep = base("", layers=8)
    plain, again = (deep.training(replace(STEP, checkpointing=on)) for on in (False, True))
    assert again.working < 0.5 * plain.working and again.operations > 1.2 * plain.operations
    held = deep.training(replace(STEP, accumulated=True))
    assert held.working > plain.working and held.operations == plain.operations
    inputs = base(layers=8).training(STEP, inputs=True)
    assert inputs.learns == 0 and 0.5 * plain.operations < inputs.operations < plain.operations
    narrow, wide = (
        base("layers.0.", dtype=dtype).training(replace(STEP, bf16=True))
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert wide.frozen == 2 * narrow.frozen and wide.working > narrow.working, (
        "copies for products in bfloat16"
    )


FAMILIES = ("mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3", "gemma4_text")


@pytest.mark.parametrize("family", FAMILIES)
def test_families_cost_what_is_counted(family: str) -> None:
    torch.manual_seed(0)
    lm: Any = class_of(config_of(family))(config_of(family))
    lm.set_experts_implementation("eager")
    found = Estimator(lm)
    ids = torch.randint(5, 30, (2, 16))
    with torch.no_grad(), flops.Counter() as count:
        lm(ids)
    estimated = found.answering(2, 16, 1)
    assert estimated.forward(2, 16, logits=16) == pytest.approx(count.total, rel=0.05)
    assert estimated.weights == bytes_of(lm.parameters())
