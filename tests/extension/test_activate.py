"""Active extensions, and unloading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moextend
from moextend import Conversation, MultimodalLM, Prompt, Settings, activate, extend, generate, unload
from moextend.errors import InputError, UnknownName
from tests.toys import logits, picture, toy_model

COLOUR = [Conversation(((f"<image> w1 w2 w{i % 5 + 3}", "w50"),), (picture(i * 5),)) for i in range(30)]
COUNT = [Conversation(((f"<image> w30 w31 w{i % 5 + 3}", "w51"),), (picture(i * 5),)) for i in range(30)]
TEXT = [Conversation(((f"w20 w21 w{i % 5 + 3}", "w52"),)) for i in range(30)]
DATA = {"colour": COLOUR, "count": COUNT, "text": TEXT}
SHORT = Settings(steps=15, batch_size=10, learning_rate=3e-2)


def prompt(row: Conversation) -> Prompt:
    return Prompt(row.turns[0][0], row.media)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three extensions, each made alone on the base, two of images and one of text."""
    folder, model = tmp_path_factory.mktemp("extensions"), toy_model()
    for name, data in DATA.items():
        extend(model, name, data, folder=folder / name, layers="all", settings=SHORT)
    return folder


def loaded(folder: Path, *names: str) -> MultimodalLM:
    model = toy_model()
    for name in names:
        moextend.load_extension(model, folder / name)
    return model


def test_exactly_the_named_ones_compute(folder: Path, ids: Tensor) -> None:
    model, base = loaded(folder, *DATA), logits(toy_model(), ids)
    activate(model, "none")
    assert torch.equal(logits(model, ids), base)
    found = []
    for names in (["colour"], ["text"], ["colour", "text"], "all"):
        activate(model, names)
        found.append(logits(model, ids))
    assert all(not torch.equal(a, b) for i, a in enumerate([base, *found]) for b in found[i:])
    activate(model, ["text", "colour"])
    assert torch.equal(logits(model, ids), found[2]), "in the order of their making"
    activate(model, "text")
    assert torch.equal(logits(model, ids), found[1])
    pair = loaded(folder, "colour", "text")
    activate(pair, "all")
    assert torch.equal(logits(pair, ids), found[2]), "what is not active costs nothing"
    with pytest.raises(UnknownName, match="Did you mean 'colour'"):
        activate(model, ["color"])
    assert torch.equal(logits(model, ids), found[1]), "a wrong name changes nothing"


def test_auto_finds_the_extension_of_each_input(folder: Path) -> None:
    model = loaded(folder, *DATA)
    asked = [prompt(rows[i]) for i in range(3) for rows in DATA.values()]
    expected: dict[Prompt, str] = {}
    for name, rows in DATA.items():
        activate(model, [name])
        own = [prompt(rows[i]) for i in range(3)]
        expected |= dict(zip(own, generate(model, own, max_new_tokens=1, batch_size=3), strict=True))
    activate(model, "auto")
    found = generate(model, asked, max_new_tokens=1, batch_size=4)
    assert found == [expected[each] for each in asked] == ["w50", "w51", "w52"] * 3
    unload(model, "text")
    unload(model, "count")
    activate(model, "none")
    base = generate(model, asked[2:3], max_new_tokens=1, batch_size=1)
    activate(model, "auto")
    assert generate(model, asked[:3], max_new_tokens=1, batch_size=3) == [
        expected[asked[0]],
        expected[asked[0]],
        *base,
    ]
    unload(model, "colour")
    assert generate(model, asked[2:3], max_new_tokens=1, batch_size=1) == base
    activate(model, "none")
    assert model.choose is None


def test_auto_needs_statistics_and_a_whole_model(folder: Path) -> None:
    model = loaded(folder, "colour")
    moextend.activate(model, "none")
    moextend.attach(model.lm, "bare", {0: [1]})
    with pytest.raises(InputError, match="'bare' has no task statistics"):
        activate(model, "auto")
    with pytest.raises(InputError, match="a bare language model cannot choose an extension"):
        activate(model.lm, "auto")
    assert model.choose is None


def parts(lm: nn.Module) -> dict[str, Any]:
    """Every module with its class and what it holds, tensors by identity."""
    found: dict[str, Any] = {}
    for name, module in lm.named_modules():
        held = {**module._parameters, **module._buffers, **module._modules}
        found[name] = (
            id(module),
            type(module),
            {key: id(value) for key, value in held.items()},
            set(vars(module)),
        )
    return found


def test_unloading_gives_the_base_back_object_by_object(folder: Path, ids: Tensor) -> None:
    model = toy_model()
    before, base = parts(model.lm), logits(model, ids)
    for name in ("colour", "count"):
        moextend.load_extension(model, folder / name)
    activate(model, ["count"])
    second = logits(model, ids)
    unload(model, "colour")
    assert torch.equal(logits(model, ids), second), "the other one is as it was"
    unload(model, "count")
    assert parts(model.lm) == before and torch.equal(logits(model, ids), base)
    assert moextend.extensions(model) == []
    with pytest.raises(UnknownName):
        unload(model, "count")
