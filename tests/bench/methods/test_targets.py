"""What LoRA methods adapt and full fine-tuning trains, in every family: the decoder, and never its towers."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from moextend.bench.methods import adapters, parse
from moextend.bench.methods.shapes import Shapes
from moextend.errors import InputError
from moextend.model.lm_head import auto_class, decoder, prefix
from tests.moe.toy_composites import COMPOSITES, composite_config
from tests.moe.toy_families import CONFIGS, class_of, config_of

DOWN = {
    "down_proj": ("gate_proj", "up_proj", "gate_up_proj"), "output_linear": ("input_linear",), "w2": ("w1", "w3"),
}  # fmt: skip
"""The last matrix of an MLP -> those before it."""


def shapes(name: str, **more: Any) -> Shapes:
    """A small model of the family on device meta; `more`: settings of its config."""
    composite = name in COMPOSITES
    config = composite_config(name) if composite else config_of(name, **more)
    with torch.device("meta"):
        return Shapes(auto_class(config).from_config(config) if composite else class_of(config)(config))


def adapted(model: Shapes, method: str) -> dict[str, Any]:
    """What the first stage of a method trains; nothing where its check refuses the family."""
    made = parse(method).make()
    try:
        made.check(model)
    except InputError:
        return {}
    return dict(made.trainable(model))


@pytest.mark.parametrize(
    "name",
    [
        *COMPOSITES,
        *(
            pytest.param(name, marks=[pytest.mark.long] if place % 4 else [])
            for place, name in enumerate(CONFIGS)
        ),
    ],
)
def test_adapters_are_in_the_decoder_alone(name: str) -> None:
    for method in ("lora", "o-lora", "moe-lora"):
        model = shapes(name)
        inside = {id(parameter) for parameter in decoder(model.lm).parameters()}
        found = adapted(model, method)
        inside |= {id(parameter) for parameter in decoder(model.lm).parameters()}
        assert found and all(id(parameter) in inside for parameter in found.values()), method


@pytest.mark.parametrize("name", sorted(COMPOSITES))
def test_full_fine_tuning_of_a_composite_leaves_its_towers(name: str) -> None:
    model = shapes(name)
    trained = parse("full-ft").make().trainable(model)
    inside = {id(parameter) for parameter in decoder(model.lm).parameters()}
    others = {name for name, parameter in trained.items() if id(parameter) not in inside}
    assert inside <= {id(parameter) for parameter in trained.values()}
    assert all(name.endswith("lm_head.weight") for name in others), others


@pytest.mark.parametrize(
    "name",
    [
        *COMPOSITES,
        *(
            pytest.param(name, marks=[pytest.mark.long] if place % 4 else [])
            for place, name in enumerate(CONFIGS)
        ),
    ],
)
def test_full_fine_tuning_of_gate_and_up_freezes_what_follows_them(name: str) -> None:
    """Beside every matrix of an MLP that returns to the hidden state, all others are trained; nothing else is."""
    model = shapes(name)
    inside = f"lm.{prefix(model.lm)}"
    known = {n: p for n, p in model.named_parameters() if n.startswith(inside) and p.dim() > 1}
    found = adapted(model, "full-ft:part=gate_up")
    trained = {n for n, p in found.items() if p.dim() > 1 and not n.endswith("_bias")}
    wanted = set()
    for n in known:
        for down, beside in DOWN.items():
            if n.removesuffix(".weight").endswith(f".{down}"):
                near = {n.replace(f".{down}", f".{one}") for one in beside} & known.keys()
                wanted |= near
    assert trained == wanted and trained
    attention = set(adapted(shapes(name), "full-ft:part=attention"))
    assert attention and not attention & trained
    assert all("norm" not in n for n in attention | trained)


def test_a_part_that_a_model_does_not_have_is_refused() -> None:
    model = shapes("lfm2_moe", layer_types=["conv", "conv"])
    with pytest.raises(InputError, match="full-ft finds no weights of part=attention in Lfm2Moe"):
        parse("full-ft:part=attention").make().check(model)


@pytest.mark.parametrize(
    ("name", "wanted", "block"),
    [
        ("qwen3_next", {"q_proj", "k_proj", "v_proj", "o_proj"}, "self_attn"),
        ("qwen3_next", {"in_proj_qkvz", "in_proj_ba", "out_proj"}, "linear_attn"),
        ("deepseek_v3", {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}, "self_attn"),
        ("deepseek_v32", {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}, "self_attn"),
        ("deepseek_v4", {"q_a_proj", "q_b_proj", "kv_proj", "o_b_proj"}, "self_attn"),
        ("nemotron_h", {"q_proj", "k_proj", "v_proj", "o_proj"}, "mixer"),
    ],
)
def test_attention_is_adapted_whatever_its_kind(name: str, wanted: set[str], block: str) -> None:
    """Linear and latent attention, and that of hybrids; without an indexer, which gets no gradient, and without
    block-diagonal maps, whose adapters fail.
    """
    names = adapters.attention_maps(shapes(name).lm)
    assert {name.rpartition(".")[2] for name in names if f".{block}." in name} == wanted


def test_a_model_without_linear_attention_maps_and_experts_is_refused() -> None:
    model = shapes("lfm2_moe", layer_types=["conv", "conv"])
    with pytest.raises(InputError, match=r"finds no linear maps of attention .*experts=false"):
        parse("lora:experts=false").make().check(model)


def test_the_experts_of_a_layer_that_has_them_are_adapted_alone() -> None:
    """Gemma 4: the router is a child of the layer, whose output has its attention, too."""
    model = shapes("gemma4")
    method = parse("moe-lora").make()
    method.start(cast(Any, model), 0)
    blocks = {name.partition(".moe_lora")[0] for name in method.trainable(shapes("gemma4"))}
    assert any(name.endswith(".experts") for name in blocks)
    assert not any(name.endswith(tuple(f"layers.{i}" for i in range(9))) for name in blocks)


@pytest.mark.parametrize(
    "name", ["qwen3_next", "deepseek_v3", "deepseek_v32", "deepseek_v4", "nemotron_h", "kimi_linear"]
)
def test_every_adapter_of_attention_gets_a_gradient(name: str) -> None:
    config = config_of(name)
    torch.manual_seed(0)
    model = Shapes(class_of(config)(config).float())
    for parameter in model.lm.parameters():
        parameter.requires_grad_(False)
    adapters.inject(cast(Any, model), parse("lora:experts=false").make().config, 0)
    own = {n: p for n, p in model.lm.named_parameters() if "lora_B" in n}
    for parameter in own.values():
        parameter.requires_grad_(True)
    ids = torch.randint(5, 60, (2, 200), generator=torch.Generator().manual_seed(0))
    model.lm(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert own and not [n for n, p in own.items() if p.grad is None or not p.grad.abs().sum() > 0]
