"""Extensions on disk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from moextend import (
    activate,
    attach,
    detach,
    expand,
    extensions,
    load_extension,
    new_parameters,
    save_extension,
)
from moextend.errors import InputError
from moextend.extension import active_fingerprint, is_whole
from moextend.multimodal import MultimodalLM

from .conftest import WORDS, toy_model, toy_tokenizer


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
    with pytest.raises(InputError, match=r"made beside 'a', which is not loaded\. Load 'a' first"):
        load_extension(other, tmp_path / "c")
    load_extension(other, tmp_path / "alone")
    load_extension(other, tmp_path / "a")
    with pytest.raises(InputError, match="beside another extension 'b' than the loaded one"):
        load_extension(other, tmp_path / "c")
    assert [each.name for each in extensions(other)] == ["b", "a"]
    detach(other.lm, "b")
    load_extension(other, tmp_path / "b")
    load_extension(other, tmp_path / "c")
    assert torch.equal(logits(other, ids), logits(model, ids))


def test_extensions_that_were_loaded_in_another_order_are_refused(tmp_path: Path) -> None:
    model = toy_model()
    for name in "ab":
        activate(model, "none")
        attach(model.lm, name, {0: [1]})
        save_extension(model, name, folder=tmp_path / name)
    activate(model, "all")
    attach(model.lm, "c", {1: [0]})
    save_extension(model, "c", folder=tmp_path / "c")
    other = toy_model()
    load_extension(other, tmp_path / "b")
    load_extension(other, tmp_path / "a")
    with pytest.raises(InputError, match="made beside a, b, and they are loaded as b, a"):
        load_extension(other, tmp_path / "c")


def test_a_damaged_or_missing_extension_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no extension"):
        load_extension(toy_model(), tmp_path)
    model = grown("exact", "a")
    save_extension(model, "a", folder=tmp_path)
    assert is_whole(tmp_path)
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
    ("change", "said"),
    [
        ({"format": 2}, "is of format 2, and this version of moextend reads format 1"),
        ({"format": "x"}, "names no known format"),
        ({"format": None}, r"early versions.*Remove the folder and make it again"),
        ({"plan": None}, "holds no expert set"),
        ({"plan": {"0": [1]}}, "holds other tensors than extension.json says"),
        ({"plan": {"7": [1]}}, "MoE blocks 0 to 2"),
        ({"name": "b"}, "holds other tensors"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    save_extension(grown("exact", "a"), "a", folder=tmp_path)
    card = json.loads((tmp_path / "extension.json").read_text()) | change
    card = {key: value for key, value in card.items() if value is not None}
    (tmp_path / "extension.json").write_text(json.dumps(card))
    other = toy_model()
    attach(other.lm, "before", {0: [1]})
    with pytest.raises(InputError, match=said):
        load_extension(other, tmp_path)
    assert [each.name for each in extensions(other)] == ["before"]
    assert expand.scope_of(other.lm).active == ("before",)


PEAK = Path("/proc/self/clear_refs")


def resident(key: str) -> int:
    """Bytes that this process holds in memory (VmRSS), or held at the most since its peak was reset (VmHWM)."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


@pytest.mark.skipif(not PEAK.exists(), reason="needs Linux's account of the peak memory")
def test_loading_takes_the_extension_own_bytes_and_no_more(tmp_path: Path) -> None:
    def large() -> MultimodalLM:
        config = AutoConfig.for_model(
            "mixtral", hidden_size=256, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, vocab_size=len(WORDS), num_local_experts=2,
        )  # fmt: skip
        torch.manual_seed(0)
        return MultimodalLM(AutoModelForCausalLM.from_config(config).eval(), toy_tokenizer())

    model, other = large(), large()
    attach(model.lm, "a", {0: [0, 1], 1: [1]})
    save_extension(model, "a", folder=tmp_path)
    wanted = new_parameters(model.lm, "a")
    before = resident("VmRSS")
    PEAK.write_text("5")
    loaded = load_extension(other, tmp_path)
    peak = resident("VmHWM") - before
    assert loaded.bytes > 35e6 and all(
        torch.equal(p, wanted[name]) for name, p in new_parameters(other.lm, "a").items()
    )
    assert peak <= 1.05 * loaded.bytes


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
