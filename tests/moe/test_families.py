"""Every MoE family of transformers: changed and unchanged parts of an extended model, in each routing mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moextend import activate, attach, detach, load_extension, new_parameters, save_extension
from moextend.errors import InputError
from moextend.model.multimodal import MultimodalLM
from moextend.moe import copies
from moextend.moe.attach import scope_of
from moextend.moe.families import FAMILIES, family_of
from moextend.moe.recipe import Mode
from moextend.moe.sites import Site, count_experts, find_sites, first_new_id
from tests.moe.toy_families import CONFIGS, VOCABULARY, family, outputs
from tests.toys import shake

ALL = sorted(CONFIGS)
MODELS_WITHOUT_PAPER = {row.model for row in FAMILIES.values() if row.refused}
PAPER = [name for name in ALL if name not in MODELS_WITHOUT_PAPER]
KINDS = [
    "mixtral", "olmoe", "qwen2_moe", "gpt_oss", "deepseek_v3", "gemma4_text", "llama4_text", "lfm2_moe", "nemotron_h",
    "longcat_flash", "phimoe", "ernie4_5_moe", "muse_spark_text", "zaya",
]  # fmt: skip
"""One family for each way of routing and computing."""
HEADLESS = {"muse_spark_text"}
IDS = torch.randint(3, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(2))


def modes_of(name: str) -> list[Mode]:
    """Routing modes that extend a family."""
    found: list[Mode] = ["exact"]
    found += ["paper"] if name in PAPER else []
    return found if name == "llama4_text" else [*found, "slot"]


KINDS_BOTH = [(name, mode) for name in KINDS for mode in modes_of(name)]


def kernels(model: Any) -> tuple[str, ...]:
    """The implementations of its experts that a model can be set to, eager first."""
    return ("eager", "batched_mm", "grouped_mm") if model._can_set_experts_implementation() else ("eager",)


def use(model: Any, kernel: str) -> None:
    if model._can_set_experts_implementation():
        model.set_experts_implementation(kernel)


@pytest.fixture
def lm(name: str) -> Iterator[Any]:
    """The family that the test is for; extensions are taken off afterwards."""
    model = family(name)
    use(model, "eager")
    yield model
    for known in list(scope_of(model).known):
        detach(model, known)
    use(model, "eager")
    model.requires_grad_(False)


def everywhere(model: nn.Module, *parents: int) -> dict[int, list[int]]:
    return {site.layer: list(parents) for site in find_sites(model)}


def state(model: nn.Module) -> dict[str, tuple[int, Tensor]]:
    return {name: (tensor.data_ptr(), tensor.detach().clone()) for name, tensor in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, tuple[int, Tensor]]) -> None:
    now = model.state_dict()
    for name, (place, value) in before.items():
        assert now[name].data_ptr() == place and torch.equal(now[name], value), name


@pytest.mark.parametrize("name", ALL)
def test_the_base_returns_and_only_new_parts_learn(name: str, lm: Any) -> None:
    base, before = outputs(lm, IDS), state(lm)
    modules = {key: (id(m), type(m), set(m.__dict__)) for key, m in lm.named_modules()}
    attach(lm, "a", everywhere(lm, 1, 2))
    same(lm, before)
    assert torch.equal(outputs(lm, IDS), base)
    shake(lm, "a")
    changed = outputs(lm, IDS)
    assert changed.isfinite().all() and not torch.equal(changed, base)

    new = new_parameters(lm, "a")
    assert {key for key, p in lm.named_parameters() if p.requires_grad} == set(new)
    given = {"input_ids": IDS}
    if hasattr(lm, "codec_embedding"):
        given = {"inputs_embeds": lm.codec_embedding(IDS)}
    lm(**given)[0].float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in new.values())
    assert all(p.grad is None for key, p in lm.named_parameters() if key not in new)

    activate(lm, [])
    assert torch.equal(outputs(lm, IDS), base)
    detach(lm, "a")
    assert torch.equal(outputs(lm, IDS), base)
    assert {key: (id(m), type(m), set(m.__dict__)) for key, m in lm.named_modules()} == modules
    assert set(lm.state_dict()) == set(before)
    same(lm, before)


@pytest.mark.parametrize(("name", "mode"), KINDS_BOTH)
def test_the_base_is_kept_to_the_bit_and_what_is_saved_is_what_was(
    name: str, mode: Mode, lm: Any, tmp_path: Path
) -> None:
    def each() -> list[Tensor]:
        found = []
        for kernel in kernels(lm):
            use(lm, kernel)
            found.append(outputs(lm, IDS))
        use(lm, "eager")
        return found

    def equal(found: list[Tensor], expected: list[Tensor]) -> bool:
        return all(map(torch.equal, found, expected))

    base = each()
    for extension, parents in (("a", (1, 2)), ("b", (0,))):
        attach(lm, extension, everywhere(lm, *parents), mode=mode)
    assert mode == "paper" or equal(each(), base), "before training"
    shake(lm, "a")
    shake(lm, "b")
    learned = each()
    assert not torch.equal(learned[0], base[0])
    assert all(torch.allclose(one, learned[0], atol=1e-4) for one in learned)
    activate(lm, {"a": 0.0})
    assert equal(each(), base), "off"
    model = MultimodalLM(lm, tokenizer=None)
    for extension in "ab":
        save_extension(model, extension, folder=tmp_path / extension)
    for extension in "ba":
        detach(lm, extension)
    assert torch.equal(outputs(lm, IDS), base[0]), "detached"
    for extension in "ab":
        load_extension(model, tmp_path / extension)
    assert equal(each(), learned), "loaded"


@pytest.mark.parametrize(("name", "mode"), [pair for pair in KINDS_BOTH if pair[0] not in HEADLESS])
def test_generation_with_a_cache_equals_the_full_forward(name: str, mode: Mode, lm: Any) -> None:
    attach(lm, "a", everywhere(lm, 1), mode=mode)
    shake(lm, "a", 0.1)
    made = lm.generate(
        IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3, min_new_tokens=3, do_sample=False,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    whole = outputs(lm, made.sequences)
    for step, logits in enumerate(made.logits):
        assert torch.allclose(logits, whole[:, IDS.shape[1] - 1 + step], atol=2e-4)


def summed(lm: Any, site: Site) -> Tensor:
    """What the experts of a block give; of experts that compute every token, the output of the block."""
    found: list[Tensor] = []
    watched = site.block if site.dense else site.experts
    hook = watched.register_forward_hook(
        lambda _, args, out: found.append((out[0] if isinstance(out, tuple) else out).detach())
    )
    outputs(lm, IDS)
    hook.remove()
    return found[-1].double()


@pytest.mark.parametrize(("name", "mode"), KINDS_BOTH)
def test_the_experts_output_lies_on_a_straight_line(name: str, mode: Mode, lm: Any) -> None:
    site, without = find_sites(lm)[-1], outputs(lm, IDS)
    attach(lm, "new", {site.layer: [0, 1]}, mode=mode)
    shake(lm, "new")
    full, logits = summed(lm, site), outputs(lm, IDS)
    activate(lm, {"new": 0.0})
    base = summed(lm, site)
    assert torch.equal(outputs(lm, IDS), without), "no strength is the base"
    assert not torch.allclose(base, full), "else the test says nothing"
    size = float((full - base).abs().max())
    for strength in (0.1, 0.5, 0.9):
        activate(lm, {"new": strength})
        assert (summed(lm, site) - (base + strength * (full - base))).abs().max() < 1e-5 * max(1, size)
    activate(lm, {"new": 1})
    assert torch.equal(outputs(lm, IDS), logits), "full strength computes the same operations"


THIRD = 0.3
"""8 of 24 neurons."""


@pytest.mark.parametrize("name", KINDS)
def test_a_narrow_expert_is_its_parent_without_the_weakest_neurons(name: str, lm: Any) -> None:
    attach(lm, "a", everywhere(lm, 1), width=THIRD)
    site = find_sites(lm)[0]
    base, group = site.experts, site.experts.get_submodule("ext_groups.a")
    inner = copies.inner_size(base)
    assert copies.inner_size(group) == 8 < inner
    whole = {key: p.detach() for key, p in base._parameters.items() if p is not None}
    hidden = whole["down_proj"][0].numel() // inner
    with torch.no_grad():
        for key, parameter in group._parameters.items():
            if parameter is not None and parameter.requires_grad:
                parameter[0] = copies.kept(base, key, 1, THIRD)
    parent = copy.deepcopy(group)
    for key, tensor in whole.items():
        if tensor.shape[0] in (count_experts(site), first_new_id(site)):
            parent._parameters[key] = torch.nn.Parameter(tensor[1:2].clone())
    down = parent.get_parameter("down_proj").data[0]
    columns = down if down.shape[0] == hidden else down.T
    columns[:, columns.norm(dim=0).argsort()[:-8]] = 0
    h = torch.randn(5, hidden, generator=torch.Generator().manual_seed(1))
    slots = torch.zeros(5, 1, dtype=torch.long), torch.full((5, 1), 0.7)
    with torch.no_grad():
        expected, found = parent(h, *slots), group(h, *slots)
    assert expected.abs().max() > 0 and torch.allclose(found, expected, atol=1e-6)
    shake(lm, "a", 0.1)
    eager = outputs(lm, IDS)
    for kernel in kernels(lm)[1:]:
        use(lm, kernel)
        assert torch.allclose(outputs(lm, IDS), eager, atol=1e-4), kernel


@pytest.mark.parametrize("name", sorted(MODELS_WITHOUT_PAPER))
def test_paper_is_refused_with_the_reason_and_leaves_the_model_alone(name: str, lm: Any) -> None:
    kinds = {key: type(m) for key, m in lm.named_modules()}
    reason = next(family_of(s.router).refused for s in find_sites(lm) if family_of(s.router).refused)
    with pytest.raises(InputError, match=reason[:40]):
        attach(lm, "a", everywhere(lm, 1), mode="paper")
    assert {key: type(m) for key, m in lm.named_modules()} == kinds


@pytest.mark.parametrize("name", ["llama4_text"])
def test_slot_routing_needs_slots(name: str, lm: Any) -> None:
    with pytest.raises(InputError, match=r"routing 'slot' cannot extend .*every expert computes every token"):
        attach(lm, "a", everywhere(lm, 1), mode="slot")


@pytest.mark.parametrize("name", KINDS)
def test_a_bfloat16_base_is_kept_to_the_bit_and_new_parts_are_float32(name: str) -> None:
    lm = copy.deepcopy(family(name)).bfloat16()
    use(lm, "eager")
    base = outputs(lm, IDS)
    attach(lm, "a", everywhere(lm, 1))
    assert torch.equal(outputs(lm, IDS), base)
    assert {p.dtype for p in new_parameters(lm, "a").values()} == {torch.float32}
    shake(lm, "a")
    assert outputs(lm, IDS).dtype == base.dtype and not torch.equal(outputs(lm, IDS), base)
