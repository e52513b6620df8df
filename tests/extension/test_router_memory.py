"""Retention by router-input memory."""

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
    retention_loss,
    train,
)
from moextend.errors import InputError
from moextend.extension import router_memory
from moextend.extension.retention import output_loss
from moextend.extension.router_memory import Memory, RouterInputs
from moextend.extension.tensor_files import write_tensors
from moextend.moe.recipe import Mode, Recipe
from moextend.moe.sites import find_sites
from tests.toys import picture, shake

OLD = [Conversation(((f"w{i} w{i + 1} w{i + 2}", ""),)) for i in range(20, 40)]
NEW = [Conversation(((f"<image> w{i}", f"w{i % 5}"),), (picture(i * 9),)) for i in range(20)]


def inputs(model: MultimodalLM, data: list[Conversation], **settings: Any) -> RouterInputs:
    return router_memory.collect(model, data, **settings).router_inputs


def test_a_memory_survives_the_disk(model: MultimodalLM, tmp_path: Path) -> None:
    kept = router_memory.collect(model, OLD, tokens=30, seed=0)
    assert set(kept.tensors()) == {*"012", "0.size", "1.size", "2.size"}
    router_memory.write(kept, tmp_path)
    both = router_memory.join([router_memory.read(tmp_path), kept])
    for name, x in kept.tensors().items():
        assert torch.equal(both.tensors()[name], torch.cat([x, x]))
    assert not router_memory.join([]) and not Memory() and kept


@pytest.mark.parametrize("mode", ["exact", "slot"])
def test_on_kept_tokens_the_model_stays_the_base(model: MultimodalLM, mode: Mode, tmp_path: Path) -> None:
    old = inputs(model, OLD, tokens=40, seed=0)
    attach(model.lm, "a", {0: [1], 1: [1]}, mode=mode)
    loss = retention_loss(model, "a", old, margin=0.1, weight=10.0, sample=40, seed=0)
    before = float(loss({}, {}).detach())
    rows = {".rows": 3.0, ".bias": 3.0}
    train(model, NEW, Settings(steps=40, batch_size=20, learning_rate=2e-2), folder=tmp_path / "t",
          extra_loss=loss, rates=rows)  # fmt: skip
    assert float(loss({}, {}).detach()) < 0.1 * before
    reached = 0.0
    for site in find_sites(model.lm)[:2]:
        with torch.no_grad():
            _, weights, index = site.router(old[site.layer])[:3]
        reached += float(((index >= 4) & (weights > 0)).any(-1).float().mean()) / 2
    assert reached < 0.1


def test_the_loss_is_the_mean_excess_over_the_threshold(model: MultimodalLM) -> None:
    old = inputs(model, OLD, tokens=40, seed=0)
    attach(model.lm, "a", {1: [1]})
    with torch.no_grad():
        for parameter in new_parameters(model.lm, "a").values():
            if parameter.dim() < 3:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    part: Any = find_sites(model.lm)[1].router.get_submodule("ext_parts.a")
    loss = retention_loss(model, "a", {1: old[1]}, margin=0.25, weight=2.0, sample=40, seed=1)
    drawn = torch.randint(40, (40,), generator=torch.Generator().manual_seed(1))
    expected = (
        2.0
        * sum(max(float((part.rows[0] @ old[1][i] + part.bias[0]).detach()) + 0.25, 0.0) for i in drawn)
        / 40
    )
    assert float(loss({}, {}).detach()) == pytest.approx(float(expected), rel=1e-4)


def test_the_rows_do_not_depend_on_the_batch_size(model: MultimodalLM) -> None:
    rows = [Conversation(((" ".join(f"w{j}" for j in range(i % 9 + 1)), ""),)) for i in range(80)]
    kept, again = (inputs(model, rows, tokens=100, seed=3, batch_size=size) for size in (1000, 5))
    assert all(torch.allclose(kept[layer], again[layer], atol=1e-5) for layer in kept)


def test_the_output_loss_is_the_relative_change_of_the_blocks(model: MultimodalLM) -> None:
    attach(model.lm, "a", {0: [1], 1: [0]})
    shake(model.lm, "a")
    old = router_memory.collect(model, OLD, tokens=40, seed=0)
    attach(model.lm, "b", {0: [1], 1: [1]})
    loss = output_loss(model, "b", old, weight=2.0, sample=40, seed=1)
    assert float(loss({}, {})) == 0, "new experts start at zero"
    shake(model.lm, "b")
    loss = output_loss(model, "b", old, weight=2.0, sample=40, seed=1)
    drawn, expected = torch.Generator().manual_seed(1), 0.0
    for site in find_sites(model.lm)[:2]:
        x, outputs = old.router_inputs[site.layer], []
        for names in (["a"], ["a", "b"]):
            activate(model.lm, names)
            with torch.no_grad():
                _, weights, index = site.router(x)[:3]
                outputs.append(site.experts(x, index, weights))
        size = outputs[0].square().sum(-1)
        assert torch.allclose(size, old.sizes[site.layer], rtol=1e-4)
        change = (outputs[1] - outputs[0]).square().sum(-1) / size.clamp_min(0.01 * float(size.mean()))
        expected += 2.0 * float(change[torch.randint(40, (40,), generator=drawn)].mean()) / 2
    found = loss({}, {})
    assert expected > 0 and float(found.detach()) == pytest.approx(expected, rel=1e-4)
    model.learn_only([f"lm.{name}" for name in new_parameters(model.lm, "b")])
    loss({}, {}).backward()
    gradients = {name: p.grad for name, p in new_parameters(model.lm, "b").items()}
    assert all(grad is not None and bool(grad.any()) for grad in gradients.values()), gradients
    assert all(p.grad is None for p in new_parameters(model.lm, "a").values())
    with torch.no_grad():
        for name, parameter in new_parameters(model.lm, "b").items():
            if name.endswith("bias"):
                parameter.fill_(-1000.0)
    assert float(loss({}, {})) == 0, "closed gates add nothing"


@pytest.mark.parametrize(
    "tensors",
    [
        {"0": torch.ones(3, 2), "0.other": torch.ones(3)},
        {"0": torch.ones(3, 2), "0.size": torch.ones(2)},
        {"0": torch.ones(3)},
    ],
)
def test_another_file_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    write_tensors(tmp_path / router_memory.FILE, tensors)
    with pytest.raises(
        InputError, match=r"memory\.safetensors: is not a router-input memory of this version"
    ):
        router_memory.read(tmp_path)


def test_a_memory_has_the_layers_that_every_extension_of_its_recipe_extends(
    model: MultimodalLM, tmp_path: Path
) -> None:
    how: dict[str, Any] = {
        "settings": Settings(steps=1, batch_size=4, learning_rate=1e-3),
        "memory_tokens": 20,
    }

    def layers_of(name: str, **fields: Any) -> list[int]:
        extend(model, name, OLD, folder=tmp_path / name, scope="all", **how, **fields)
        return sorted(router_memory.read(tmp_path / name).router_inputs)

    assert layers_of("one", layers=[1]) == [1]
    for layers, lacking in (([0, 1], "0"), ("all", "0, 2"), ("probe", "0, 2")):
        says = rf"no router inputs of MoE layers {lacking},.*Extend layers 1, or train"
        with pytest.raises(InputError, match=says):
            layers_of("three", layers=layers)
        assert not (tmp_path / "three").exists()
    activate(model.lm, [])
    assert layers_of("free", layers="random") == [0, 1, 2], "the next one may have other layers"
    assert layers_of("other", layers=[2]) == [2]


@pytest.mark.parametrize(
    ("text", "layers"), [("0", [0]), ("0+3", [0, 3]), (1, [1]), ("first", "first"), ([2], [2])]
)
def test_layers_of_a_recipe_can_be_written_as_text(text: Any, layers: Any) -> None:
    assert Recipe(layers=text).layers == layers


@pytest.mark.parametrize("text", ["0+", "-1", "0,3", "0+0", "3+0", []])
def test_other_text_is_no_layer(text: Any) -> None:
    with pytest.raises(InputError, match="layers"):
        Recipe(layers=text)
