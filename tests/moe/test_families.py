"""Every MoE family of transformers: changed and unchanged parts of an extended model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moextend import activate, attach, detach, new_parameters
from moextend.errors import InputError
from moextend.moe.families import FAMILIES, family_of
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.toy_families import CONFIGS, VOCABULARY, family, outputs
from tests.toys import shake

ALL = sorted(CONFIGS)
MODELS_WITHOUT_PAPER = {row.model for row in FAMILIES.values() if row.refused}
PAPER = [name for name in ALL if name not in MODELS_WITHOUT_PAPER]
BOTH = [(name, mode) for name in ALL for mode in ("exact", "paper") if mode == "exact" or name in PAPER]
KINDS = [
    "mixtral", "olmoe", "qwen2_moe", "gpt_oss", "deepseek_v3", "gemma4_text", "llama4_text", "lfm2_moe", "nemotron_h",
    "longcat_flash", "phimoe", "ernie4_5_moe", "muse_spark_text", "zaya",
]  # fmt: skip
"""One family for each way of routing and computing."""
HEADLESS = {"muse_spark_text"}
KINDS_BOTH = [
    *((name, mode) for name, mode in BOTH if name in KINDS),
    *((name, "slot") for name in KINDS if name != "llama4_text"),
]


def kernels(model: Any) -> tuple[str, ...]:
    """The implementations of its experts that a model can be set to, eager first."""
    return ("eager", "batched_mm", "grouped_mm") if model._can_set_experts_implementation() else ("eager",)


def use(model: Any, kernel: str) -> None:
    if model._can_set_experts_implementation():
        model.set_experts_implementation(kernel)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def lm(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The family that the test is for; extensions are taken off afterwards."""
    params = request.node.callspec.params
    model = family(params["name"])
    use(model, "eager")
    yield model
    for known in list(extensions(model)):
        detach(model, known)
    use(model, "eager")
    model.requires_grad_(False)


def extensions(model: nn.Module) -> list[str]:
    known: dict[str, None] = {}
    for site in find_sites(model):
        known.update(dict.fromkeys(getattr(site.router, "ext_parts", {})))
    return list(known)


def everywhere(model: nn.Module, *parents: int) -> dict[int, list[int]]:
    return {site.layer: list(parents) for site in find_sites(model)}


def state(model: nn.Module) -> dict[str, tuple[int, Tensor]]:
    return {name: (tensor.data_ptr(), tensor.detach().clone()) for name, tensor in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, tuple[int, Tensor]]) -> None:
    now = model.state_dict()
    for name, (place, value) in before.items():
        assert now[name].data_ptr() == place and torch.equal(now[name], value), name


@pytest.mark.parametrize(("name", "mode"), BOTH)
def test_the_base_returns_and_only_new_parts_learn(name: str, mode: Mode, lm: Any, ids: Tensor) -> None:
    base, before = outputs(lm, ids), state(lm)
    modules = {key: (id(m), type(m), set(m.__dict__)) for key, m in lm.named_modules()}
    attach(lm, "a", everywhere(lm, 1, 2), mode=mode)
    same(lm, before)
    shake(lm, "a")
    changed = outputs(lm, ids)
    assert changed.isfinite().all() and not torch.equal(changed, base)

    new = new_parameters(lm, "a")
    assert {key for key, p in lm.named_parameters() if p.requires_grad} == set(new)
    kept = {key: p.detach().clone() for key, p in new.items()}
    optimiser = torch.optim.SGD(new.values(), lr=0.1)
    given = (
        {"input_ids": ids}
        if not hasattr(lm, "codec_embedding")
        else {"inputs_embeds": lm.codec_embedding(ids)}
    )
    lm(**given)[0].float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in new.values())
    assert all(p.grad is None for key, p in lm.named_parameters() if key not in new)
    optimiser.step()
    assert any(not torch.equal(p, kept[key]) for key, p in new.items())
    same(lm, before)

    activate(lm, [])
    assert torch.equal(outputs(lm, ids), base)
    activate(lm, ["a"])
    detach(lm, "a")
    assert torch.equal(outputs(lm, ids), base)
    assert {key: (id(m), type(m), set(m.__dict__)) for key, m in lm.named_modules()} == modules
    assert set(lm.state_dict()) == set(before)
    same(lm, before)


@pytest.mark.parametrize(("name", "mode"), [pair for pair in KINDS_BOTH if pair[0] not in HEADLESS])
def test_generation_with_a_cache_equals_the_full_forward(name: str, mode: Mode, lm: Any, ids: Tensor) -> None:
    attach(lm, "a", everywhere(lm, 1), mode=mode)
    shake(lm, "a", 0.1)
    made = lm.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, min_new_tokens=3, do_sample=False,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    whole = outputs(lm, made.sequences)
    for step, logits in enumerate(made.logits):
        assert torch.allclose(logits, whole[:, ids.shape[1] - 1 + step], atol=2e-4)


@pytest.mark.parametrize("name", sorted(MODELS_WITHOUT_PAPER))
def test_paper_is_refused_with_the_reason_and_leaves_the_model_alone(name: str, lm: Any, ids: Tensor) -> None:
    base = outputs(lm, ids)
    kinds = {key: type(m) for key, m in lm.named_modules()}
    reason = next(family_of(s.router).refused for s in find_sites(lm) if family_of(s.router).refused)
    with pytest.raises(InputError, match=reason[:40]):
        attach(lm, "a", everywhere(lm, 1), mode="paper")
    assert {key: type(m) for key, m in lm.named_modules()} == kinds
    assert torch.equal(outputs(lm, ids), base)
