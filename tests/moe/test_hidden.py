"""A forward method that hides an extension is refused, before and after attaching; device maps, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial, update_wrapper
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from accelerate.hooks import remove_hook_from_submodules
from torch import Tensor, nn

from moextend import (
    Conversation,
    Prompt,
    Settings,
    activate,
    attach,
    detach,
    generate,
    new_parameters,
    train,
)
from moextend.errors import InputError
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.toy_composites import build_composite
from tests.moe.toy_families import build
from tests.moe.unchanged import unchanged
from tests.toys import logits, shake, toy_lm, toy_model

LAYERS = ("embed_tokens", "rotary_emb", "norm", "layers.0", "layers.1", "layers.2")


def fused(block: Any, hidden_states: Tensor) -> Tensor:
    """What a kernel for the whole block does: it reads the router's weights and calls neither router nor experts."""
    x = hidden_states.reshape(-1, hidden_states.shape[-1])
    weights, index = (x @ block.gate.weight.T).softmax(-1).topk(2)
    experts: Any = type(block.experts).__mro__[-3]
    out: Tensor = experts.forward(block.experts, x, index, weights).view_as(hidden_states)
    return out


def places(lm: nn.Module) -> dict[str, nn.Module]:
    site, layer = find_sites(lm)[1], lm.get_submodule("model.layers.1")
    return {"block": site.block, "router": site.router, "experts": site.experts, "layer": layer}


WAYS: dict[str, Callable[[Any], Any]] = {
    "a kernel": lambda module: MethodType(fused, module),
    "a closure": lambda module: partial(module.forward),
}


CASES = [("block", "a kernel"), ("router", "a closure"), ("experts", "a closure"), ("layer", "a closure")]


@pytest.mark.parametrize(("place", "way"), CASES)
@pytest.mark.parametrize("family", ["mixtral", "llama4_text"])
def test_it_is_refused_before(family: str, place: str, way: str) -> None:
    lm = build(family)
    module: Any = places(lm)[place]
    module.forward = WAYS[way](module)
    with (
        unchanged(lm),
        pytest.raises(InputError, match="would hide the extension"),
    ):
        attach(lm, "a", {0: [1], 1: [1]})
    del module.forward
    attach(lm, "a", {0: [1], 1: [1]})


@pytest.mark.parametrize(("place", "way"), CASES)
def test_it_is_refused_afterwards(place: str, way: str, tmp_path: Path) -> None:
    model = toy_model()
    attach(model.lm, "a", {0: [1], 1: [1]})
    generate(model, [Prompt("w1")], max_new_tokens=1, batch_size=1)
    module: Any = places(model.lm)[place]
    module.forward = WAYS[way](module)
    data = [Conversation((("w1 w2", "w50"),))] * 2
    for call in (
        lambda: activate(model, ["a"]),
        lambda: generate(model, [Prompt("w1")], max_new_tokens=1, batch_size=1),
        lambda: train(model, data, Settings(steps=1, batch_size=1, learning_rate=1e-3), folder=tmp_path),
    ):
        with unchanged(model.lm), pytest.raises(InputError, match="would hide the extension"):
            call()
    activate(model, "none")  # the base can be had


def test_a_class_that_calls_neither_router_nor_experts_is_seen_at_the_first_forward(ids: Tensor) -> None:
    lm = toy_lm()
    block = find_sites(lm)[1].block
    kind = type(block)
    block.__class__ = type("FusedBlock", (kind,), {"forward": fused})
    logits(lm, ids)
    attach(lm, "a", {1: [1]})
    for _ in range(2):  # and at every one after it
        with pytest.raises(InputError, match="FusedBlock computes without calling its router"):
            logits(lm, ids)
    block.__class__ = kind
    logits(lm, ids)
    assert not any(module._forward_hooks for module in lm.modules()), "it costs nothing afterwards"


def test_detach_refuses_what_goes_on_calling_the_extended_class(ids: Tensor) -> None:
    lm = toy_lm()
    base = logits(lm, ids)
    attach(lm, "a", {1: [1]})
    router: Any = find_sites(lm)[1].router
    router.forward = update_wrapper(partial(router.forward), router.forward)
    with unchanged(lm), pytest.raises(InputError, match="its class cannot be restored"):
        detach(lm, "a")
    del router.forward
    detach(lm, "a")
    assert torch.equal(logits(lm, ids), base)


@contextmanager
def untouched(lm: nn.Module) -> Iterator[None]:
    """`unchanged`, for tensors without values."""

    def now() -> list[Any]:
        kinds = [(name, type(module)) for name, module in lm.named_modules()]
        return [kinds, [(name, p.requires_grad) for name, p in lm.named_parameters()]]

    before = now()
    yield
    assert now() == before


def device_map(last: str) -> dict[str, Any]:
    return {**{f"model.{name}": "cpu" for name in LAYERS}, "lm_head": "cpu", "model.layers.2": last}


@pytest.mark.parametrize(("mode", "last"), [("exact", "cpu"), ("paper", "disk"), ("slot", "disk")])
def test_an_extended_model_is_dispatched_and_its_extension_comes_off(
    mode: Mode, last: str, ids: Tensor, tmp_path: Path
) -> None:
    lm = toy_lm()
    base = logits(lm, ids)
    attach(lm, "a", {0: [1], 2: [0]}, mode=mode)
    attach(lm, "b", {2: [3]}, mode=mode)
    shake(lm, "a")
    shake(lm, "b")
    extended = logits(lm, ids)
    dispatch_model(lm, device_map(last), main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    assert torch.equal(logits(lm, ids), extended)
    activate(lm, [])
    assert torch.equal(logits(lm, ids), base)
    detach(lm, "b")
    activate(lm, ["a"])
    assert not torch.equal(logits(lm, ids), base)
    detach(lm, "a")
    assert torch.equal(logits(lm, ids), base)
    assert not any(type(module).__name__.startswith("Extended") for module in lm.modules())
    remove_hook_from_submodules(lm)
    attach(lm, "a", {0: [1], 2: [0]}, mode=mode)


def test_offloaded_weights_and_device_maps_are_refused_by_name(ids: Tensor, tmp_path: Path) -> None:
    offloaded = r"weights of model\.layers\.2\.mlp \(MixtralExperts\) are offloaded.*dispatch it afterwards"
    lm = toy_lm()
    dispatch_model(lm, device_map("disk"), main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    with untouched(lm), pytest.raises(InputError, match=r"spread over devices by a device_map \(cpu, disk\)"):
        attach(lm, "a", {2: [1]})
    del lm.hf_device_map  # as where hooks are put on without a map
    with untouched(lm), pytest.raises(InputError, match=offloaded):
        attach(lm, "a", {2: [1]})
    with pytest.raises(InputError, match=r"model\.layers\.0\.mlp.*would hide the extension"):
        attach(lm, "a", {0: [1]})
    lm = toy_lm()
    base = logits(lm, ids)
    cpu_offload(lm, execution_device=torch.device("cpu"))
    with untouched(lm), pytest.raises(InputError, match=offloaded):
        attach(lm, "a", {2: [1]}, mode="paper")
    assert torch.equal(logits(lm, ids), base)
    with torch.device("meta"):
        shapes = toy_lm()
    attach(shapes, "a", {0: [1]})
    assert all(p.is_meta for p in new_parameters(shapes, "a").values())


@pytest.mark.parametrize("make", [toy_lm, lambda: build_composite("qwen3_vl_moe")])
def test_no_part_of_an_extended_model_is_saved_as_a_base(make: Callable[[], Any], tmp_path: Path) -> None:
    lm = make()
    attach(lm, "a", {0: [1]})
    attach(lm, "b", {1: [0]})
    for part in (lm, deepcopy(lm).model, lm.model):
        with pytest.raises(InputError, match=r"model is extended.*save_model.*save_extension.*unload"):
            part.save_pretrained(tmp_path / "saved")
    detach(lm, "a")
    with pytest.raises(InputError, match="model is extended"):
        lm.model.save_pretrained(tmp_path / "saved")
    detach(lm, "b")
    assert not (tmp_path / "saved").exists() and not any(
        "save_pretrained" in m.__dict__ for m in lm.modules()
    )
