"""Estimates from shapes against stored tensors and operations of a real step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import moextend
from moextend.errors import InputError
from moextend.model import loading
from moextend.training import flops
from moextend.training.estimate import STATE, Learns, Step, cache_a_token, estimate

ROWS, LENGTH, LABELLED = 8, 64, 32
STEP = Step(ROWS, LENGTH, LABELLED, dtype=torch.float32, bf16=False)
BLOCKS = (2, 3)


def measured(learns: Learns) -> tuple[Any, float, float]:
    """The model, the bytes that autograd keeps of a float32 step (the loss's own apart), and its operations."""
    model = moextend.load("tiny")
    if learns.everything:
        model.lm.requires_grad_(True)
    else:
        moextend.attach(model.lm, "a", {block: [0] for block in learns.blocks}, width=learns.width)
    model.lm.set_experts_implementation("grouped_mm")
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    ids = torch.randint(5, 60, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, : LENGTH - LABELLED] = -100
    with flops.Counter() as count:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
        out["loss"].backward()
    return model, sum(kept.values()) - out["logits"].numel() * 4, count.total


@pytest.mark.parametrize("learns", [Learns(everything=True), Learns(blocks=BLOCKS)], ids=["all", "extension"])
def test_the_estimate_is_near_what_a_real_step_takes(learns: Learns) -> None:
    model, kept, operations = measured(learns)
    trained = sum(p.numel() for p in model.trainable().values())
    found = estimate(loading.skeleton("tiny"), STEP, learns)
    assert found.trained == trained and found.states == STATE * trained
    assert found.parameters == sum(
        p.numel() for n, p in model.lm.named_parameters() if learns.everything or ".ext_" not in n
    )
    assert found.weights == (0 if learns.everything else 4 * found.parameters)
    assert found.activations == pytest.approx(kept, rel=0.1)
    assert found.operations == pytest.approx(operations, rel=0.02)
    config = model.lm.config
    heads = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    assert cache_a_token(loading.skeleton("tiny"), torch.float32) == 2 * config.num_hidden_layers * heads * 4


def test_checkpointing_keeps_less_and_computes_more_and_dtypes_count() -> None:
    def of(learns: Learns, **how: Any) -> Any:
        return estimate(loading.skeleton("tiny"), Step(ROWS, LENGTH, LABELLED, **how), learns)

    upper, every = Learns(blocks=BLOCKS), Learns(everything=True)
    plain = of(upper)
    whole, again = of(every), of(every, checkpointing=True)
    assert again.activations < 0.5 * whole.activations and again.operations > 1.2 * whole.operations
    assert plain.weights == 2 * plain.parameters and plain.casts == 0
    wide = of(upper, dtype=torch.float32)
    assert wide.weights == 2 * plain.weights, "a float32 base takes twice the memory"
    assert 0 < wide.casts < plain.weights, "and copies of the upper layers are kept"
    assert whole.casts == 2 * plain.parameters, "copies in bfloat16 of what learns in float32"
    adapters = of(Learns(parameters=1000))
    assert adapters.states == STATE * 1000 and adapters.activations > plain.activations
    assert plain.seconds(peak=1e12, utilisation=0.5) == pytest.approx(plain.operations / 5e11)


def test_a_model_that_cannot_be_traced_is_one_clear_error() -> None:
    lm = loading.skeleton("tiny")
    lm.model.forward = lambda **_: torch.zeros(3).nonzero().tolist()
    with pytest.raises(InputError, match=r"model \w+ForCausalLM: cannot be estimated: "):
        estimate(lm, STEP, Learns(everything=True))


@pytest.mark.parametrize("family", ["olmoe", "qwen2_moe", "gpt_oss", "llama4_text", "granitemoe"])
def test_families_are_traced(family: str) -> None:
    shape = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 64, "intermediate_size": 32, "max_position_embeddings": 128,
    }  # fmt: skip
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    found = estimate(lm, Step(2, 32, 8), Learns(blocks=(0,)))
    assert found.activations > 0 and found.trained > 64
    assert found.operations > 6 * 64 * found.trained, "the base is counted, not the new experts alone"
