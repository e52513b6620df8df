"""LoRA on stacked experts in its factored form: equal to peft's form, with fewer operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor

from moextend.bench.methods import adapters, parse
from moextend.bench.methods.shapes import Shapes
from moextend.training.flops import Counter
from tests.moe.toy_families import build

IDS = torch.randint(5, 60, (2, 40), generator=torch.Generator().manual_seed(0))


def adapted(family: str, method: str, names: list[str], implementation: str | None = None) -> Any:
    """A model with these adapters, none of which is zero; they alone learn, and all of them are active."""
    model: Any = Shapes(build(family).float())
    if implementation is not None:
        model.lm.set_experts_implementation(implementation)
    for name in names:
        adapters.inject(model, parse(method).make().config, 0, name)
    drawn = torch.Generator().manual_seed(1)
    for name, parameter in model.lm.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=drawn)
    for layer in adapters.layers(model):
        layer.set_adapter(names)
    return model


def dense(model: Any) -> None:
    """Puts back peft's own form, which adds the updates to the stacks."""
    wrappers = [layer for layer in adapters.layers(model) if isinstance(layer, ParamWrapper)]
    assert wrappers and all(type(each) is not ParamWrapper for each in wrappers)
    for each in wrappers:
        each.__class__ = ParamWrapper


def passed(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs, and the gradients of what learns."""
    model.lm.zero_grad()
    out = model.lm(input_ids=IDS, use_cache=False)[0]
    (out.float() * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
    return out.detach(), {n: p.grad.clone() for n, p in model.lm.named_parameters() if p.grad is not None}


def distance(ours: tuple[Tensor, dict[str, Tensor]], theirs: tuple[Tensor, dict[str, Tensor]]) -> float:
    """Largest relative distance of the logits and of any gradient."""
    assert ours[1].keys() == theirs[1].keys() and any(".experts." in name for name in ours[1])
    pairs = [(ours[0], theirs[0]), *((ours[1][name], theirs[1][name]) for name in ours[1])]
    return max(float((a - b).norm() / b.norm().clamp_min(1e-6)) for a, b in pairs)


@pytest.mark.parametrize(
    ("family", "implementation"),
    [
        ("mixtral", "eager"),
        ("qwen2_moe", "grouped_mm"),
        ("qwen3_moe", "batched_mm"),
        ("gpt_oss", "eager"),  # transposed, with biases
        ("gpt_oss", "grouped_mm"),
        ("openai_privacy_filter", "eager"),  # reads each expert in float32
        ("nemotron_h", "grouped_mm"),  # without gates
        ("llama4_text", None),  # every expert computes every token
    ],
)
@pytest.mark.parametrize("names", [["one"], ["one", "two"]])
def test_outputs_and_gradients_equal_those_of_peft(
    family: str, implementation: str | None, names: list[str]
) -> None:
    model = adapted(family, "lora:rank=3", names, implementation)  # a rank that grouped products do not take
    ours = passed(model)
    dense(model)
    assert distance(ours, passed(model)) < 1e-5


def test_bf16_and_checkpointing_change_nothing_but_the_rounding() -> None:
    model = adapted("mixtral", "lora:rank=4", ["one"], "eager")
    plain = passed(model)
    model.lm.train().gradient_checkpointing_enable({"use_reentrant": False})
    assert distance(passed(model), plain) < 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        ours = passed(model)
        dense(model)
        assert distance(ours, passed(model)) < 0.1


def test_only_the_rows_that_reach_an_expert_are_multiplied() -> None:
    """Operations besides attention's: both factors on k rows a token, forward, for the inputs and for the weights."""
    counted = []
    for method in ("lora:rank=4", "lora:rank=4,experts=false"):
        model = adapted("mixtral", method, ["one"], "eager")
        with Counter() as count:
            passed(model)
        counted.append(count.total)
    config, both = model.lm.config, 0
    for inputs, outputs in ((32, 48), (24, 32)):  # gate and up, down
        both += 4 * (inputs + outputs)
    assert counted[0] - counted[1] == 3 * 2 * IDS.numel() * config.num_experts_per_tok * both * 2
