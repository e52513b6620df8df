"""Extensions on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moextend import activate, attach, detach, load_extension, new_parameters, save_extension
from moextend.errors import InputError
from moextend.extension import active_fingerprint, is_whole
from moextend.multimodal import MultimodalLM

from .conftest import toy_model


def logits(model: MultimodalLM, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.lm(ids).logits


def grown(mode: str, *names: str) -> MultimodalLM:
    model = toy_model()
    for name in names:
        attach(model.lm, name, {0: [1], 2: [0, 3]}, mode=mode)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in new_parameters(model.lm, name).values():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    return model


@pytest.mark.parametrize("mode", ["exact", "paper", "slot"])
def test_saved_loaded_and_unloaded(mode: str, tmp_path: Path, ids: Tensor) -> None:
    model = grown(mode, "a", "b")
    save_extension(model, "a", folder=tmp_path / "a")
    save_extension(model, "b", folder=tmp_path / "b", beside=["a"])
    other = toy_model()
    base = logits(other, ids)
    load_extension(other, tmp_path / "a")
    load_extension(other, tmp_path / "b")
    assert torch.equal(logits(other, ids), logits(model, ids))
    assert active_fingerprint(other) == active_fingerprint(model)
    assert not other.trainable()
    detach(other.lm, "b")
    detach(other.lm, "a")
    assert torch.equal(logits(other, ids), base)


def test_an_extension_of_another_base_is_refused(tmp_path: Path) -> None:
    model = grown("exact", "a")
    save_extension(model, "a", folder=tmp_path)
    other = toy_model()
    with torch.no_grad():
        other.projector.inner.weight.add_(1)
    with pytest.raises(InputError, match="belongs to another base"):
        load_extension(other, tmp_path)


def test_a_later_extension_needs_the_earlier_one(tmp_path: Path) -> None:
    model = grown("paper", "a", "b")
    save_extension(model, "b", folder=tmp_path, beside=["a"])
    with pytest.raises(InputError, match=r"made beside 'a', which is not loaded\. Load 'a' first"):
        load_extension(toy_model(), tmp_path)


def test_a_damaged_or_missing_extension_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no extension"):
        load_extension(toy_model(), tmp_path)
    model = grown("exact", "a")
    save_extension(model, "a", folder=tmp_path)
    assert is_whole(tmp_path)
    whole = (tmp_path / "extension.safetensors").read_bytes()
    (tmp_path / "extension.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        load_extension(toy_model(), tmp_path)


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    model = grown("exact", "a")
    save_extension(model, "a", folder=tmp_path)
    card = json.loads((tmp_path / "extension.json").read_text())
    assert card["plan"] == {"0": [1], "2": [0, 3]} and card["base"] == model.base_fingerprint()


def test_the_fingerprint_names_what_computes() -> None:
    model = grown("exact", "a", "b")
    both = active_fingerprint(model)
    activate(model.lm, ["a"])
    one = active_fingerprint(model)
    activate(model.lm, [])
    assert active_fingerprint(model) == model.base_fingerprint()
    assert len({both, one, model.base_fingerprint()}) == 3
