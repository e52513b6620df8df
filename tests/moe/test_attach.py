"""attach: refused arguments, and unchanged parts of the model."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from moextend import activate, attach, detach, new_parameters
from moextend.errors import InputError, UnknownName
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.toys import toy_lm


def test_only_new_parts_learn_and_base_tensors_are_the_same_objects() -> None:
    lm = toy_lm()
    base = {name: (id(p), p.detach().clone()) for name, p in lm.named_parameters()}
    attach(lm, "a", {0: [1], 2: [1]})
    for name, (identity, value) in base.items():
        parameter = lm.get_parameter(name)
        assert id(parameter) == identity and torch.equal(parameter, value) and not parameter.requires_grad
    assert (
        set(new_parameters(lm, "a"))
        == {n for n, p in lm.named_parameters() if p.requires_grad}
        == (set(dict(lm.named_parameters())) - set(base))
    )


def test_new_parts_are_float32_on_a_bfloat16_base(ids: Tensor) -> None:
    lm = toy_lm().bfloat16()
    base = lm(ids).logits
    attach(lm, "a", {0: [1]})
    assert {p.dtype for p in new_parameters(lm, "a").values()} == {torch.float32}
    assert torch.equal(lm(ids).logits, base)


def test_a_deep_copy_is_independent(ids: Tensor) -> None:
    lm = toy_lm()
    attach(lm, "a", {0: [1]})
    twin = copy.deepcopy(lm)
    detach(twin, "a")
    assert find_sites(lm)[0].router.get_submodule("ext_parts.a")
    assert not hasattr(find_sites(twin)[0].router, "ext_parts")


def test_one_extension_can_be_detached_from_among_others(ids: Tensor) -> None:
    lm = toy_lm()
    attach(lm, "a", {0: [1]})
    attach(lm, "b", {0: [2]})
    detach(lm, "a")
    parts = find_sites(lm)[0].router.get_submodule("ext_parts")
    assert [name for name, _ in parts.named_children()] == ["b"]
    detach(lm, "b")
    attach(lm, "a", {1: [0]}, mode="paper")  # and the mode is free again


@pytest.mark.parametrize(
    ("name", "plan", "mode", "message"),
    [
        ("a", {0: [1]}, "exact", "already has an extension 'a'"),
        ("a.b", {0: [1]}, "exact", "cannot be the name of an extension"),
        ("b", {0: [1]}, "paper", "share one mode"),
        ("b", {0: [4]}, "exact", "has experts 0 to 3, not 4"),
        ("b", {}, "exact", "has no new expert"),
    ],
)
def test_attach_refuses(name: str, plan: dict[int, list[int]], mode: Mode, message: str) -> None:
    lm = toy_lm()
    attach(lm, "a", {0: [1]})
    with pytest.raises(InputError, match=message):
        attach(lm, name, plan, mode=mode)


def test_an_unknown_extension_is_named_with_what_there_is() -> None:
    lm = toy_lm()
    attach(lm, "attributes", {0: [1]})
    with pytest.raises(UnknownName, match="Did you mean 'attributes'"):
        activate(lm, ["atributes"])
    with pytest.raises(UnknownName):
        detach(lm, "other")


def test_a_forward_replaced_on_the_instance_is_refused() -> None:
    lm = toy_lm()
    router = find_sites(lm)[0].router
    router.forward = partial(router.forward)  # as hooks of device maps do
    with pytest.raises(InputError, match="would hide the extension"):
        attach(lm, "a", {0: [1]})


def test_a_dense_model_is_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    dense = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9
        )
    )
    with pytest.raises(InputError, match="no MoE block"):
        attach(dense, "a", {0: [1]})


def test_paper_mode_refuses_a_router_that_it_does_not_know() -> None:
    class OddRouter(nn.Module):
        pass

    lm = toy_lm()
    router = find_sites(lm)[0].router
    router.__class__ = type("OddRouter", (nn.Module,), {"forward": type(router).forward})
    with pytest.raises(InputError, match="does not know the router"):
        attach(lm, "a", {0: [1]}, mode="paper")


def test_a_calibration_needs_its_co_active_extensions() -> None:
    lm = toy_lm()
    attach(lm, "a", {0: [1]}, mode="paper")
    attach(lm, "b", {0: [1]}, mode="paper")
    with pytest.raises(
        InputError, match=r"'b' was made with 'a' active and needs it\. Activate them together: a, b"
    ):
        activate(lm, ["b"])
