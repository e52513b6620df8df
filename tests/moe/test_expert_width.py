"""Experts narrower than their parents, in every family."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moextend import attach, detach, load_extension, new_parameters, save_extension
from moextend.extension.store import handle
from moextend.model.multimodal import MultimodalLM
from moextend.moe import copies
from moextend.moe.sites import count_experts, find_sites, first_new_id
from tests.moe.test_families import HEADLESS, KINDS, everywhere, ids, kernels, lm, use
from tests.moe.toy_families import outputs
from tests.toys import shake

__all__ = ["ids", "lm"]
THIRD = 0.3
"""8 of 24 neurons."""


@pytest.mark.parametrize("name", KINDS)
def test_a_narrow_expert_is_its_parent_without_the_weakest_neurons(name: str, lm: Any, ids: Tensor) -> None:
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


@pytest.mark.parametrize("name", KINDS)
def test_exact_equals_the_base_and_kernels_agree(name: str, lm: Any, ids: Tensor) -> None:
    base = outputs(lm, ids)
    attach(lm, "a", everywhere(lm, 1, 0), width=THIRD)
    assert torch.equal(outputs(lm, ids), base)
    shake(lm, "a", 0.1)
    eager = outputs(lm, ids)
    assert not torch.equal(eager, base)
    for kernel in kernels(lm)[1:]:
        use(lm, kernel)
        assert torch.allclose(outputs(lm, ids), eager, atol=1e-4), kernel
    detach(lm, "a")
    use(lm, "eager")
    assert torch.equal(outputs(lm, ids), base)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in HEADLESS])
def test_saved_and_loaded_with_full_width_ones(name: str, lm: Any, ids: Tensor, tmp_path: Path) -> None:
    model = MultimodalLM(lm, tokenizer=None)
    for own, width in (("a", THIRD), ("b", 1.0)):
        attach(lm, own, everywhere(lm, 1), width=width)
        shake(lm, own)
    trained = outputs(lm, ids)
    sizes = [sum(p.numel() for p in new_parameters(lm, own).values()) for own in ("a", "b")]
    assert sizes[0] < 0.6 * sizes[1]
    for own in ("a", "b"):
        save_extension(model, own, folder=tmp_path / own)
    for own in ("b", "a"):
        detach(lm, own)
    assert [load_extension(model, tmp_path / own).width for own in ("a", "b")] == [THIRD, 1.0]
    assert handle(model, "a").parameters == sizes[0]
    assert torch.equal(outputs(lm, ids), trained)
