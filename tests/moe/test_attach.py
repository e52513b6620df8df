"""attach: refused arguments, and unchanged parts of the model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from moextend import attach, detach, new_parameters
from moextend.errors import InputError
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


def test_a_deep_copy_is_independent(ids: Tensor) -> None:
    lm = toy_lm()
    attach(lm, "a", {0: [1]})
    twin = copy.deepcopy(lm)
    detach(twin, "a")
    assert find_sites(lm)[0].router.get_submodule("ext_parts.a")
    assert not hasattr(find_sites(twin)[0].router, "ext_parts")


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


def test_other_families_want_a_newer_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moextend.moe.supported.version", lambda package: "5.19.2")
    lm = toy_lm()
    attach(lm, "a", {0: [1]})
    monkeypatch.setattr("moextend.moe.supported.OLDEST", ("olmoe",))
    with pytest.raises(
        InputError, match=r"MixtralTopKRouter needs transformers 5\.20 or later, and this is 5\.19"
    ):
        attach(lm, "b", {0: [1]})
