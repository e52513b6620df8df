"""An extended model is copied and its tensors are saved, but it is not pickled."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch

import moextend
from moextend.errors import InputError
from moextend.moe.recipe import Mode
from tests.toys import toy_model

MODES: tuple[Mode, ...] = ("exact", "paper", "slot")
WAYS: tuple[Callable[[object], object], ...] = (
    pickle.dumps,
    lambda it: torch.save(it, io.BytesIO()),
    lambda it: torch.save({"model": [it]}, io.BytesIO()),
)


@pytest.mark.parametrize("mode", MODES)
def test_an_extended_model_is_not_pickled_until_it_is_unloaded(mode: Mode) -> None:
    model = toy_model()
    moextend.attach(model.lm, "new", {0: [0], 2: [1]}, mode=mode)
    for part in (model, model.lm, model.lm.model.layers[2]):
        for way in WAYS:
            with pytest.raises(InputError) as refused:
                way(part)
            for words in ("moextend.save_model", "moextend.save_extension", "state_dict()"):
                assert words in str(refused.value)
    assert pickle.dumps(model.lm.model.layers[1]), "a layer without new experts is as before"
    moextend.unload(model, "new")
    for way in WAYS:
        way(model.lm)


@pytest.mark.parametrize("mode", MODES)
def test_a_copy_and_saved_tensors_compute_the_same_bits(mode: Mode, ids: torch.Tensor) -> None:
    model, other = toy_model(), toy_model()
    for each in (model, other):
        moextend.attach(each.lm, "new", {0: [0], 2: [1]}, mode=mode)
    with torch.no_grad():
        for parameter in moextend.new_parameters(model.lm, "new").values():
            parameter.add_(0.1)
        expected, base = model.lm(ids).logits, toy_model().lm(ids).logits
        copied = copy.deepcopy(model)
        assert torch.equal(copied.lm(ids).logits, expected) and not torch.equal(expected, base)
        moextend.unload(copied, "new")
        assert torch.equal(copied.lm(ids).logits, base) and torch.equal(model.lm(ids).logits, expected)
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other.lm(ids).logits, expected)


def test_loading_and_new_modalities_leave_random_states_alone() -> None:
    projectors = []
    for seed in (3, 99):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        model = moextend.load("tiny", vision="tiny")
        moextend.add_modality(model, "audio", encoder="tiny")
        assert torch.equal(torch.get_rng_state(), before)
        projectors.append([part.projector.state_dict() for part in model.modalities.values()])
    for one, other in zip(*projectors, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
