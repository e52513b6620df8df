"""Strengths of extensions: 0 is the base and 1 the extension, bit for bit, with a straight line between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moextend import activate, active_fingerprint, attach
from moextend.errors import InputError, UnknownName
from moextend.moe import attach as expand
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.test_families import summed
from tests.moe.toy_families import outputs as outputs_for
from tests.toys import shake, toy_lm, toy_model

IDS = torch.randint(4, 60, (3, 9), generator=torch.Generator().manual_seed(8))
MODES: tuple[Mode, ...] = ("exact", "paper", "slot")


def shaken(lm: nn.Module, *names: str) -> None:
    """Gives the parameters of extensions random values."""
    for seed, name in enumerate(names):
        shake(lm, name, seed=seed)


def outputs(lm: Any) -> Tensor:
    return outputs_for(lm, IDS)


@pytest.mark.parametrize("mode", MODES)
def test_several_extensions_each_with_its_strength(mode: Mode) -> None:
    lm = toy_lm()
    last = find_sites(lm)[-1]
    for name, parent in (("a", 0), ("b", 0), ("c", 1)):
        activate(lm, [])
        attach(lm, name, {last.layer: [parent]}, mode=mode, calibrate=False)
    shaken(lm, "a", "b", "c")

    def y(*names: str) -> Tensor:
        activate(lm, list(names))
        return summed(lm, last)

    expected = 0.25 * y("a", "b", "c") + 0.5 * y("a", "c") + 0.25 * y("c")
    activate(lm, {"b": 0.25, "a": 0.75, "c": 1})
    assert torch.allclose(summed(lm, last), expected, atol=1e-5)
    some = y("a", "c")
    activate(lm, {"a": 1, "b": 0, "c": 1.0})
    assert torch.equal(summed(lm, last), some), "strength 0 is not active"


def test_an_extension_is_no_stronger_than_those_it_was_made_with() -> None:
    lm = toy_lm()
    attach(lm, "a", {1: [0]}, mode="paper")
    attach(lm, "b", {1: [1]}, mode="paper")
    activate(lm, {"a": 0.6, "b": 0.6})
    activate(lm, {"a": 0.6, "b": 0.2})
    before = outputs(lm)
    with pytest.raises(InputError, match=r"'b' was made with 'a' active, which has the strength 0\.6"):
        activate(lm, {"a": 0.6, "b": 0.7})
    with pytest.raises(InputError, match="needs it"):
        activate(lm, {"a": 0, "b": 0.5})
    assert torch.equal(outputs(lm), before), "a refused call changes nothing"
    with pytest.raises(InputError, match="was made with"):
        expand.activate(lm, {"a": 0.5, "b": 1.0}, partial=True)  # its calibration reads a


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan"), "0.5", True])
def test_a_strength_is_a_number_from_0_to_1(wrong: Any) -> None:
    lm = toy_lm()
    attach(lm, "a", {1: [0]})
    activate(lm, {"a": 0.5})
    with pytest.raises(InputError, match="is not a strength"):
        activate(lm, {"a": wrong})
    assert expand.scope_of(lm).strengths == {"a": 0.5}
    with pytest.raises(UnknownName, match="Did you mean 'a'"):
        activate(lm, {"aa": 0.5})
    with pytest.raises(InputError, match="only with 'all' and 'auto'"):
        activate(lm, ["a"], strengths={"a": 0.5})


def test_nothing_is_trained_on_a_weakened_extension() -> None:
    lm = toy_lm()
    attach(lm, "a", {1: [0]})
    activate(lm, {"a": 0.5})
    with pytest.raises(InputError, match=r"'a' has the strength 0\.5"):
        attach(lm, "b", {1: [1]})
    assert expand.scope_of(lm).known == ["a"]
    activate(lm, {"a": 0})
    attach(lm, "b", {1: [1]})
    assert expand.scope_of(lm).coactive["b"] == ()


def test_the_fingerprint_tells_strengths_apart() -> None:
    model = toy_model()
    attach(model.lm, "a", {1: [0]})
    full = active_fingerprint(model)
    activate(model, {"a": 1.0})
    assert active_fingerprint(model) == full
    activate(model, {"a": 0.5})
    half = active_fingerprint(model)
    activate(model, {"a": 0.25})
    assert len({full, half, active_fingerprint(model)}) == 3
    activate(model, {"a": 0})
    assert active_fingerprint(model) == model.base_fingerprint()
