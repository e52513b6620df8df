"""Stock checkpoints of every family: plain transformers computes what the extended model computes.

This is also the proof of paper routing of each family: the router of a stock class with more experts is that of
transformers itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from moextend import attach
from moextend.errors import InputError
from moextend.export import stock
from moextend.moe.sites import find_sites
from tests.moe.test_families import KINDS, PAPER, everywhere, use
from tests.moe.toy_families import CONFIGS, VOCABULARY, build, outputs
from tests.toys import shake

IDS = torch.randint(3, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(7))
NOT_SET = {"ernie4_5_vl_moe_text"}
"""Families whose config has one number for the experts of text and of images."""
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("olmoe", {"norm_topk_prob": True}),
    ("qwen3_moe", {"norm_topk_prob": False}),
    ("deepseek_v3", {"norm_topk_prob": False}),
    ("deepseek_v2", {"topk_method": "greedy"}),
    ("glm4_moe", {"routed_scaling_factor": 2.5}),
    ("cohere2_moe", {"expert_selection_fn": "sigmoid", "norm_topk_prob": True}),
    ("lfm2_moe", {"use_expert_bias": False}),
    ("kolibri1", {"norm_topk_prob": True}),
    ("phimoe", {"router_jitter_noise": 0.4}),
    ("llama4_text", {"num_experts_per_tok": 2}),
]
"""Families with another scoring by their config."""
ALL = [*((name, {}) for name in PAPER), *OTHERS]
SOME = [
    pytest.param(name, more, marks=[pytest.mark.long] if place % 3 and name not in KINDS else [])
    for place, (name, more) in enumerate(ALL)
]
"""One of three always, and each kind of router; the others are long tests."""


def open_groups(name: str, **more: Any) -> Any:
    """A model of a family that chooses from all of its experts."""
    more |= {"n_group": 1, "topk_group": 1} if "n_group" in CONFIGS[name] else {}
    lm = build(name, **more)
    use(lm, "eager")
    return lm


def extended(lm: Any, plan: dict[int, list[int]]) -> Tensor:
    """Outputs of the model with two extensions, which change them."""
    before = outputs(lm, IDS)
    for name, parents in (("a", 1), ("b", 0)):
        attach(
            lm, name, {block: [*own, parents] for block, own in plan.items()}, mode="paper", calibrate=False
        )
        shake(lm, name, 0.2)
    after = outputs(lm, IDS)
    assert not torch.allclose(after, before, atol=1e-2)
    return after


def reloaded(lm: Any, folder: Path) -> Any:
    """The checkpoint of an extended model, loaded by its class of transformers."""
    stock.stock_model(lm).save(folder)
    again, found = type(lm).from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    use(again.eval(), "eager")
    return again


def names(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(("name", "more"), SOME)
def test_a_stock_class_computes_the_same(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    lm = open_groups(name, **more)
    expected = extended(lm, everywhere(lm, 2))
    if name in NOT_SET:
        with pytest.raises(InputError, match="does not set the number of experts"):
            stock.stock_model(lm)
        return
    again = reloaded(lm, tmp_path / "a")
    assert torch.allclose(outputs(again, IDS), expected, atol=1e-5), name
    if name in KINDS:
        again.save_pretrained(tmp_path / "b")
        assert names(tmp_path / "a") == names(tmp_path / "b"), "named as transformers names them"


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3"])
def test_new_experts_are_needed_in_all_layers(name: str) -> None:
    lm = (
        open_groups(name)
        if name == "mixtral"
        else build(name, first_k_dense_replace=0, n_group=1, topk_group=1)
    )
    extended(lm, {find_sites(lm)[-1].layer: [2]})
    with pytest.raises(InputError, match=r"layers=\.\.\..*as many in every layer") as refused:
        stock.check(lm)
    assert refused.value.hint and "layers=all" in refused.value.hint


def test_groups_of_experts_are_refused_unless_all_are_open(tmp_path: Path) -> None:
    lm = build("deepseek_v3")
    extended(lm, everywhere(lm, 2))
    with pytest.raises(InputError, match="some groups of its experts"):
        stock.check(lm)
    lm = build("deepseek_v3", n_group=2, topk_group=2)
    use(lm, "eager")
    expected = extended(lm, everywhere(lm, 2))
    again = reloaded(lm, tmp_path)
    assert again.config.n_group == again.config.topk_group == 1
    assert torch.allclose(outputs(again, IDS), expected, atol=1e-5)
