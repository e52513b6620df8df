"""Retention by latents: whole inputs of earlier data, kept as hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moextend import (
    Conversation,
    MultimodalLM,
    Settings,
    activate,
    attach,
    extend,
    new_parameters,
)
from moextend.errors import InputError
from moextend.extension import latents, retention
from moextend.extension.latents import Latents
from moextend.extension.retention import SMALLEST, Retention, latent_loss
from moextend.extension.tensor_files import write_tensors
from moextend.model.batches import Collator
from moextend.moe.recipe import Recipe
from moextend.moe.sites import find_sites
from tests.moe.test_families import KINDS
from tests.moe.toy_families import build
from tests.toys import picture, shake, toy_tokenizer

OLD = [
    Conversation(((f"<image> w{i} w{i + 1}", f"w{i % 3}" * (i % 2)),), (picture(i * 5),))
    for i in range(20, 40)
]
NEW = [Conversation(((f"<image> w{i}", f"w{i % 5}"),), (picture(i * 9),)) for i in range(20)]
SHORT = Settings(steps=4, batch_size=4, learning_rate=5e-3)


@torch.no_grad()
def whole(model: MultimodalLM, data: list[Conversation]) -> tuple[Tensor, Tensor]:
    """Last hidden states [B, T, H] of inputs, and their mask [B, T]."""
    batch = Collator.of(model)(data)
    return model.hidden(batch["input_ids"], batch["attention_mask"], batch["features"]), batch[
        "attention_mask"
    ] > 0


def drawn(count: int, seed: int = 0) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("layer", [0, 2])
def test_a_pass_from_latents_is_that_of_the_inputs(model: MultimodalLM, layer: int) -> None:
    kept = latents.collect(model, OLD, 10**6, 0, layer=layer, batch_size=3)
    expected, real = whole(model, [OLD[i] for i in drawn(20)])
    assert [len(each) for each in kept.states] == real.sum(1).tolist()
    states, mask = latents.padded(kept.states)
    with torch.no_grad():
        found = latents.through(model, states, mask, layer)
    assert torch.allclose(found[real], expected[real], atol=1e-5)
    again, _ = whole(model, OLD[:3])  # the layers below compute again
    assert torch.equal(again, whole(model, OLD[:3])[0])


def test_latents_survive_the_disk(model: MultimodalLM, tmp_path: Path) -> None:
    kept = latents.collect(model, OLD, 50, 0, layer=1)
    latents.write(kept, tmp_path)
    found = latents.read(tmp_path)
    assert found.layer == 1 and all(map(torch.equal, found.states, kept.states))
    both = latents.join([found, kept])
    assert both and len(both.states) == 2 * len(kept.states) and not latents.join([])
    latents.check([tmp_path], 1, 32)
    with pytest.raises(
        InputError, match=r"latents\.safetensors: has inputs of decoder layer 1, and .* layer 0"
    ):
        latents.check([tmp_path], 0, 32)
    with pytest.raises(InputError, match=r"has states of width 32, and the model has 96"):
        latents.check([tmp_path], 1, 96)


@pytest.mark.parametrize(
    "tensors",
    [
        {"states": torch.zeros(4, 8)},
        {"states": torch.zeros(4, 8), "lengths": torch.tensor([3]), "layer": torch.tensor(0)},
        {"states": torch.zeros(4, 8).long(), "lengths": torch.tensor([4]), "layer": torch.tensor(0)},
    ],
)
def test_damaged_latents_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    write_tensors(tmp_path / latents.FILE, tensors)
    with pytest.raises(InputError, match="has no latents of this version"):
        latents.read(tmp_path)


def outputs(model: MultimodalLM, names: list[str], inputs: dict[int, Tensor]) -> dict[int, Tensor]:
    """What the experts of each block put out [tokens, H] at router inputs, with these extensions."""
    activate(model.lm, names)
    found = {}
    for site in find_sites(model.lm):
        x = inputs[site.layer]
        with torch.no_grad():
            weights, index = site.router(x)[1:3]
            found[site.layer] = site.experts(x, index, weights)
    return found


def test_the_loss_is_what_new_experts_add_at_inputs_that_they_changed(model: MultimodalLM) -> None:
    kept = latents.collect(model, OLD, 10**6, 0, layer=0)
    for name in "ab":
        attach(model.lm, name, {layer: [1] for layer in range(3)})
        shake(model.lm, name)
    model.learn_only([f"lm.{name}" for name in new_parameters(model.lm, "b")])
    read: dict[int, Tensor] = {}
    hooks = [
        site.router.register_forward_hook(
            lambda m, args, out, n=site.layer: read.update({n: args[0].detach()})
        )
        for site in find_sites(model.lm)
    ]
    activate(model.lm, ["a", "b"])
    loss = latent_loss(model, "b", kept, weight=2.0, sample=10**6, seed=0)({}, {})
    for hook in hooks:
        hook.remove()
    loss.backward()
    for parameter in new_parameters(model.lm, "b").values():
        assert parameter.grad is not None and bool(parameter.grad.any())
    real = latents.padded(kept.states)[1].flatten() > 0
    inputs = {layer: x.flatten(0, -2)[real] for layer, x in read.items()}
    before, after, expected = outputs(model, ["a"], inputs), outputs(model, ["a", "b"], inputs), 0.0
    for layer in range(3):
        size = before[layer].square().sum(-1)
        added = (after[layer] - before[layer]).square().sum(-1)
        expected += 2 * float((added / size.clamp_min(SMALLEST * size.mean())).mean())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3) and expected > 0


def test_an_extension_keeps_latents_for_the_next_one(model: MultimodalLM, tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "settings": SHORT, "layers": [1, 2], "scope": "all", "retention": "latent", "memory_tokens": 40
    }  # fmt: skip
    for name, data in (("a", OLD), ("b", NEW)):
        extend(model, name, data, folder=tmp_path / name, **how)
        kept = latents.read(tmp_path / name)
        assert kept.layer == 1 and 0 < sum(map(len, kept.states)) <= 40
    assert not (tmp_path / "a" / "memory.safetensors").exists()
    with pytest.raises(
        InputError, match="has inputs of decoder layer 1, and this extension needs those of layer 0"
    ):
        extend(model, "c", NEW, folder=tmp_path / "c", **{**how, "layers": "all"})
    with pytest.raises(InputError, match="extension 'a' is active and has no router-input memory"):
        extend(model, "c", NEW, folder=tmp_path / "c", **{**how, "retention": "output"})
    assert not (tmp_path / "c").exists()


def test_a_sharded_model_is_refused_before_anything_begins(
    model: MultimodalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "asks_to_shard", lambda: True)
    recipe = Recipe(scope="all", retention="latent", layers=[0])
    with pytest.raises(InputError, match=r"retention 'latent': cannot be used with a sharded model \(FSDP\)"):
        Retention(model, recipe).check_model(OLD)
    Retention(model, Recipe(scope="own", retention="latent")).check_model(OLD)


def test_another_routing_mode_is_refused(model: MultimodalLM) -> None:
    with pytest.raises(InputError, match="routing=slot cannot use retention=latent: use retention=memory"):
        Recipe(routing="slot", retention="latent")
    attach(model.lm, "a", {0: [1]}, mode="slot")
    with pytest.raises(InputError, match=r"retention 'latent' needs routing 'exact'"):
        latent_loss(model, "a", Latents(0, [torch.zeros(3, 32)]), weight=1.0, sample=3, seed=0)


READ_IDS = {"deepseek_v4"}
FROM_THE_LOWEST = {"glm_moe_dsa", "zaya"}
"""Families whose layers hand on more than one tensor: a pass can start at the embeddings only."""


@pytest.mark.parametrize("name", [*KINDS[2:9], "zaya", "deepseek_v4", "glm_moe_dsa"])
def test_a_family_computes_from_latents_or_is_refused(name: str) -> None:
    model = MultimodalLM(build(name), toy_tokenizer())
    data = [Conversation(((f"w5 w9 w{i} w12", ""),)) for i in range(3)]
    block = find_sites(model.lm)[-1].layer
    layer = latents.layer_of(model, block)
    assert layer > 0
    if name in READ_IDS:
        with pytest.raises(InputError, match=r"its layers read token ids\. Use retention 'output'"):
            latents.check_model(model, data, layer)
        return
    if name in FROM_THE_LOWEST:
        with pytest.raises(InputError, match=f"above its layer {layer - 1}: .* Extend its lowest MoE layer"):
            latents.check_model(model, data, layer)
        layer = 0
    latents.check_model(model, data, layer)
    attach(model.lm, "a", {block: [1]})
    shake(model.lm, "a")
    model.learn_only([f"lm.{key}" for key in new_parameters(model.lm, "a")])
    kept = latents.collect(model, data, 10**6, 0, layer=layer)
    loss = latent_loss(model, "a", kept, weight=1.0, sample=20, seed=0)({}, {})
    loss.backward()
    assert bool(loss.isfinite())
