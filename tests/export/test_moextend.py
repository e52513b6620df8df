"""Folders that transformers loads as an extended model after `moextend.register_auto_classes()`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline

import moextend
from moextend import MultimodalLM
from moextend.errors import InputError
from moextend.export.auto import MoextendConfig
from moextend.moe.recipe import Mode
from tests.toys import logits, toy_lm, toy_tokenizer

moextend.register_auto_classes()


def plain() -> MultimodalLM:
    return MultimodalLM(toy_lm(), toy_tokenizer())


def changed(model: MultimodalLM, name: str, mode: Mode = "exact", seed: int = 5) -> None:
    moextend.attach(model.lm, name, {0: [1], 2: [0]}, mode=mode, width=0.5 if mode == "exact" else 1.0)
    with torch.no_grad():
        for parameter in moextend.new_parameters(model.lm, name).values():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            parameter.add_(noise * 0.2)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    moextend.save_base(plain(), tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize(("mode", "with_base"), [("exact", True), ("paper", False), ("slot", False)])
def test_auto_classes_load_it_bit_for_bit(
    mode: Mode, with_base: bool, base: Path, tmp_path: Path, ids: Tensor
) -> None:
    model = moextend.load(str(base))
    changed(model, "a", mode)
    changed(model, "b", mode, 6)
    expected = logits(model.lm, ids)
    moextend.save_model(model, tmp_path / "out", base=str(base), with_base=with_base)
    if with_base:
        base.rename(tmp_path / "gone")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert isinstance(config, MoextendConfig) and config.active == ["a", "b"]
    assert config.architectures and hasattr(transformers, config.architectures[0]), (
        "as `transformers serve` loads it"
    )
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(lm).__name__ == "MixtralForCausalLM" and not lm.training
    assert torch.equal(logits(lm, ids), expected)
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "out", active=["a"])
    moextend.activate(model, ["a"])
    assert torch.equal(logits(alone, ids), logits(model.lm, ids))
    again = moextend.load_model(tmp_path / "out", active="all")
    assert torch.equal(logits(again.lm, ids), expected)
    assert [each.name for each in moextend.extensions(again)] == ["a", "b"]


def test_pipelines_generate_with_it(base: Path, tmp_path: Path) -> None:
    model = moextend.load(str(base))
    changed(model, "a")
    moextend.save_model(model, tmp_path / "out", base=str(base))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("w1 w2")["input_ids"] == model.tokenizer("w1 w2")["input_ids"]
    write = pipeline("text-generation", model=str(tmp_path / "out"))
    found = write("w1 w2 w3", max_new_tokens=6, do_sample=False, return_full_text=False)[0]["generated_text"]
    prompt = moextend.Prompt("w1 w2 w3")
    expected = moextend.generate(model, [prompt], max_new_tokens=6, batch_size=1)
    moextend.activate(model, "none")
    assert found.split() == expected[0].split()
    assert moextend.generate(model, [prompt], max_new_tokens=6, batch_size=1) != expected


def test_a_folder_is_loaded_with_the_weights_that_it_was_made_of(base: Path, tmp_path: Path) -> None:
    model = moextend.load(str(base))
    changed(model, "a")
    out = tmp_path / "out"
    moextend.save_model(model, out, base=str(base))
    moextend.save_base(MultimodalLM(toy_lm(seed=9), toy_tokenizer()), tmp_path / "other")
    config = json.loads((out / "config.json").read_text())

    def rewrite(**more: Any) -> None:
        (out / "config.json").write_text(json.dumps({**config, **more}))

    rewrite(base=str(tmp_path / "other"))
    with pytest.raises(InputError, match="belongs to another base"):
        AutoModelForCausalLM.from_pretrained(out)
    rewrite(format=3)
    with pytest.raises(InputError, match="has format 3"):
        AutoModelForCausalLM.from_pretrained(out)
    rewrite(extensions=[{"name": "a", "folder": "../../a"}])
    with pytest.raises(InputError, match="not the name of a folder"):
        moextend.load_model(out)
    rewrite()
    weights = out / "extensions" / "01-a" / "extension.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        AutoModelForCausalLM.from_pretrained(out)
    with pytest.raises(InputError, match="no extended model"):
        moextend.load_model(base)


def test_encoders_projectors_and_task_statistics_are_kept(tmp_path: Path) -> None:
    from tests.toys import picture

    model = moextend.load("tiny", vision="tiny")
    with torch.no_grad():
        model.modalities["image"].projector.outer.weight.add_(0.1)
    model.modalities["image"].projector.aligned = True
    rows = [moextend.Conversation((("<image> a", "b"),), (picture(i * 9),)) for i in range(12)]
    settings = moextend.Settings(steps=2, batch_size=4, learning_rate=1e-3)
    moextend.extend(model, "mine", rows, folder=tmp_path / "mine", settings=settings, layers=[0])
    with pytest.raises(InputError, match="encoder has no name"):
        moextend.save_model(model, tmp_path / "out", base="tiny")
    moextend.save_model(model, tmp_path / "out", base="tiny", encoders={"image": "tiny"})
    again = moextend.load_model(tmp_path / "out", active="auto")
    assert again.base_fingerprint() == model.base_fingerprint() and again.choose is not None
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(12).view(2, 6)
    moextend.activate(model, ["mine"])
    assert torch.equal(logits(lm, ids), logits(model.lm, ids)), "for text, without the encoder"


def test_strengths_are_part_of_the_folder(base: Path, tmp_path: Path, ids: Tensor) -> None:
    model = moextend.load(str(base))
    changed(model, "a")
    changed(model, "b", seed=6)
    full = logits(model.lm, ids)
    moextend.activate(model, {"a": 0.6, "b": 0.25})
    expected = logits(model.lm, ids)
    moextend.save_model(model, tmp_path / "out", base=str(base))
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["strengths"] == {"a": 0.6, "b": 0.25}
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), ids), expected)
    assert torch.equal(logits(moextend.load_model(tmp_path / "out").lm, ids), expected)
    assert torch.equal(logits(moextend.load_model(tmp_path / "out", active="all").lm, ids), full)
    again = moextend.load_model(tmp_path / "out", active={"a": 0.6, "b": 0.25})
    assert torch.equal(logits(again.lm, ids), expected)
    moextend.activate(model, {"a": 1.0, "b": 0.0})
    moextend.save_model(model, tmp_path / "one", base=str(base))
    config = json.loads((tmp_path / "one/config.json").read_text())
    assert (config["active"], config["strengths"]) == (["a"], {})
