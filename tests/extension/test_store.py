"""Extensions on disk."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from moextend import attach, detach, extensions, load_extension, new_parameters, save_extension
from moextend.errors import InputError
from moextend.extension.store import active_fingerprint
from moextend.extension.tensor_files import is_complete, load_tensors
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach as expand
from moextend.moe.recipe import Mode
from tests.toys import ToyEncoder, logits, shake, toy_lm, toy_model, toy_tokenizer


def grown(mode: Mode, *names: str) -> MultimodalLM:
    model = toy_model()
    for name in names:
        attach(model.lm, name, {0: [1], 2: [0, 3]}, mode=mode)
        shake(model.lm, name, 0.2)
    return model


@pytest.mark.parametrize("mode", ["exact", "paper", "slot"])
def test_saved_loaded_and_unloaded(mode: Mode, tmp_path: Path, ids: Tensor) -> None:
    model = grown(mode, "a", "b")
    save_extension(model, "a", folder=tmp_path / "a")
    save_extension(model, "b", folder=tmp_path / "b")
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
        other.modalities["image"].projector.inner.weight.add_(1)
    with pytest.raises(InputError, match="made with another projector"):
        load_extension(other, tmp_path)
    with torch.no_grad():
        other.lm.lm_head.weight.add_(1)
    other.rename_base()
    with pytest.raises(InputError, match="belongs to another base"):
        load_extension(other, tmp_path)
    assert not expand.scope_of(other.lm).known


def test_a_later_extension_needs_the_earlier_ones_in_their_order(tmp_path: Path, ids: Tensor) -> None:
    model = grown("paper", "a", "b", "c")
    for name in "abc":
        save_extension(model, name, folder=tmp_path / name)
    other, alone = toy_model(), grown("paper", "b")
    save_extension(alone, "b", folder=tmp_path / "alone")
    with pytest.raises(InputError, match=r"made with 'a' active, and it is not loaded\. Load that 'a' first"):
        load_extension(other, tmp_path / "c")
    load_extension(other, tmp_path / "alone")
    load_extension(other, tmp_path / "a")
    with pytest.raises(InputError, match="'b' active, and another one of this name is loaded"):
        load_extension(other, tmp_path / "c")
    assert [each.name for each in extensions(other)] == ["b", "a"]
    for again in "ba":
        detach(other.lm, again)
        load_extension(other, tmp_path / again)
    with pytest.raises(InputError, match="made with a, b active, but the order is b, a"):
        load_extension(other, tmp_path / "c")
    detach(other.lm, "b")
    load_extension(other, tmp_path / "b")
    load_extension(other, tmp_path / "c")
    assert torch.equal(logits(other, ids), logits(model, ids))


def test_a_damaged_or_missing_extension_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no extension"):
        load_extension(toy_model(), tmp_path)
    model = grown("exact", "a")
    save_extension(model, "a", folder=tmp_path)
    assert is_complete(tmp_path)
    path = tmp_path / "extension.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        other = toy_model()
        with pytest.raises(InputError, match="damaged: its SHA-256 is not the one"):
            load_extension(other, tmp_path)
        assert not extensions(other)
    path.write_bytes(whole)
    load_extension(toy_model(), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, and this version of moextend reads format 1"),
        ({"format": None}, "has format None"),
        ({"plan": None}, "holds no expert set"),
        ({"base_dtype": "float32+nf5"}, r"extension\.json: base_dtype: .*found 'float32\+nf5'"),
        ({"plan": {"0": [1]}}, "holds other tensors than extension.json says"),
        ({"plan": {"7": [1]}}, "MoE blocks 0 to 2"),
        ({"name": "b"}, "holds other tensors"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    save_extension(grown("exact", "a"), "a", folder=tmp_path)
    card = json.loads((tmp_path / "extension.json").read_text()) | change
    card = {key: value for key, value in card.items() if value is not None}
    (tmp_path / "extension.json").write_text(json.dumps(card))
    other = toy_model()
    attach(other.lm, "before", {0: [1]})
    with pytest.raises(InputError, match=message):
        load_extension(other, tmp_path)
    assert [each.name for each in extensions(other)] == ["before"]
    assert expand.scope_of(other.lm).active == ("before",)


def test_a_model_in_a_shorter_type_is_saved_and_loaded(tmp_path: Path) -> None:
    dtype = torch.bfloat16
    model = grown("exact", "a", "b").to(dtype)
    for name in "ab":
        save_extension(model, name, folder=tmp_path / name)
    other = toy_model()
    for name in "ab":
        load_extension(other, tmp_path / name)
        loaded = new_parameters(other.lm, name)
        for key, parameter in new_parameters(model.lm, name).items():
            assert parameter.dtype == dtype and loaded[key].dtype == torch.float32
            assert torch.equal(loaded[key], parameter.float())
    assert active_fingerprint(other) == active_fingerprint(model)
    with torch.no_grad():
        model.modalities["image"].projector.inner.weight.add_(1)
    assert active_fingerprint(other) != active_fingerprint(model)


def rewrite(folder: Path, content: dict[str, Tensor] | bytes) -> None:
    """Puts other tensors or bytes into an extension's file, with a check sum that fits."""
    path = folder / "extension.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)
    card = json.loads((folder / "extension.json").read_text())
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "extension.json").write_text(json.dumps(card))


def test_garbage_with_a_check_sum_that_fits_is_refused(tmp_path: Path) -> None:
    save_extension(grown("exact", "a"), "a", folder=tmp_path)
    other = toy_model()
    for content in (
        b"",
        b"abc",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (7).to_bytes(8, "little") + b"garbage",
    ):
        rewrite(tmp_path, content)
        for read in (lambda: load_extension(other, tmp_path), lambda: load_tensors(tmp_path)):
            with pytest.raises(InputError, match=r"extension.safetensors: is not a safetensors file"):
                read()
    assert not extensions(other)


def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    model = grown("exact", "a")
    save_extension(model, "a", folder=tmp_path)
    tensors = {key: p.detach().clone() for key, p in new_parameters(model.lm, "a").items()}
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = float("inf")
    rewrite(tmp_path, tensors)
    other = toy_model()
    for read in (lambda: load_extension(other, tmp_path), lambda: load_tensors(tmp_path)):
        with pytest.raises(InputError, match=f"tensor '{re.escape(name)}' holds numbers that are not finite"):
            read()
    assert not extensions(other)


def in_dtype(dtype: torch.dtype, seed: int = 0) -> MultimodalLM:
    """The base as `load(dtype=...)` gives it."""
    torch.manual_seed(1)
    lm: torch.nn.Module = toy_lm(seed=seed)
    return MultimodalLM(lm.to(dtype), toy_tokenizer(), {"image": ToyEncoder()})


def test_the_base_in_another_dtype_is_named_and_accepted_on_request(tmp_path: Path) -> None:
    model = in_dtype(torch.float32)
    attach(model.lm, "a", {0: [1]})
    save_extension(model, "a", folder=tmp_path)
    short = in_dtype(torch.bfloat16)
    message = r"made on a float32 base, and this one is bfloat16\. Load the base in float32 .*, or .*allow_dtype=True"
    with pytest.raises(InputError, match=message):
        load_extension(short, tmp_path)
    load_extension(short, tmp_path, allow_dtype=True)
    assert [each.name for each in extensions(short)] == ["a"]
    wanted = new_parameters(model.lm, "a")
    assert all(torch.equal(p, wanted[key]) for key, p in new_parameters(short.lm, "a").items())
    another = in_dtype(torch.bfloat16, seed=5)
    with pytest.raises(
        InputError, match=r"belongs to another base \(.*, float32; this one is .*, bfloat16\)"
    ):
        load_extension(another, tmp_path, allow_dtype=True)


def test_a_card_with_a_wrong_value_names_it(tmp_path: Path) -> None:
    model = toy_model()
    attach(model.lm, "a", {0: [1]})
    save_extension(model, "a", folder=tmp_path)
    detach(model.lm, "a")
    path = tmp_path / "extension.json"
    card = json.loads(path.read_text())
    changes: list[dict[str, Any]] = [
        {"name": 1}, {"plan": {"00": [1]}}, {"plan": {"0": [-1]}}, {"beside": [{"name": "a"}]}, {"width": "x"},
        {"mode": "other"},
    ]  # fmt: skip
    for change in changes:
        path.write_text(json.dumps(card | change))
        with pytest.raises(InputError, match=rf"extension\.json: {next(iter(change))}"):
            load_extension(model, tmp_path)
    assert not extensions(model)
