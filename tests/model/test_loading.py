"""Loading a base from the package or a folder, and refused bases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import moextend
from moextend.errors import InputError
from moextend.model.lm_head import auto_class
from moextend.model.loading import skeleton
from tests.moe.toy_composites import omni_config
from tests.moe.toy_families import family
from tests.toys import toy_lm, toy_tokenizer


def test_the_shipped_base_and_a_saved_folder_load_alike(tmp_path: Path) -> None:
    tiny = moextend.load("tiny", vision="tiny")
    assert sum(p.numel() for p in tiny.lm.parameters()) < 1_000_000
    assert not tiny.trainable() and not tiny.training
    tiny.lm.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    again = moextend.load(str(tmp_path), vision="tiny")
    ids = torch.tensor([[1, 9, 12, 30]])
    assert torch.equal(tiny.lm(ids).logits, again.lm(ids).logits)
    assert tiny.base_fingerprint() == again.base_fingerprint()


def test_of_qwen_omni_the_thinker_is_loaded(tmp_path: Path) -> None:
    whole = auto_class(omni_config()).from_config(omni_config())
    whole.save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    model = moextend.load(str(tmp_path))
    thinker = whole.thinker.state_dict()
    assert set(thinker) == set(model.lm.state_dict())
    assert all(torch.equal(tensor, thinker[name]) for name, tensor in model.lm.state_dict().items())
    ids = torch.tensor([[1, 9, 12, 30]])
    base = model(ids, torch.ones_like(ids))["logits"]
    moextend.attach(model.lm, "a", {0: [1]})
    assert torch.equal(model(ids, torch.ones_like(ids))["logits"], base)


def test_a_model_that_writes_no_text_is_refused_by_its_name(tmp_path: Path) -> None:
    family("openai_privacy_filter").save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match="'openai_privacy_filter': transformers has no language model for it"
    ):
        moextend.load(str(tmp_path))
    with pytest.raises(
        InputError, match="'openai_privacy_filter': transformers has no language model for it"
    ):
        skeleton(str(tmp_path))


def test_every_public_name_is_there() -> None:
    for name in moextend.__all__:
        assert getattr(moextend, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = moextend.nothing  # type: ignore[attr-defined]


def more_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 9}))


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def other_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    save_file(tensors | {name: tensors[name][:1].clone()}, folder / "model.safetensors", {"format": "pt"})


def fewer(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(name for name in tensors if "q_proj" in name))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("change", [more_layers, cut, other_shape, fewer])
def test_a_damaged_or_incomplete_checkpoint_is_refused(tmp_path: Path, change: Any) -> None:
    toy_lm().save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=f"^model '{tmp_path}': "):
        moextend.load(str(tmp_path))


def test_a_dtype_of_torch_is_taken_and_no_device_is_not() -> None:
    assert moextend.load("tiny", dtype=torch.float32).base_dtype == "float32"
    devices: tuple[Any, ...] = (None, "cpu:7", "gpu")
    for device in devices:
        with pytest.raises(InputError, match="device"):
            moextend.load("tiny", device=device)
