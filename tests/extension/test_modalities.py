"""Modalities that are added to a model: nothing that was there before changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import moextend
from moextend import Conversation, MultimodalLM, Prompt, Settings, activate, generate, load_extension, unload
from moextend.errors import InputError, UnknownName
from moextend.extension.store import active_fingerprint
from moextend.model.batches import Collator
from moextend.model.generation import choice_likelihoods
from tests.moe.toy_families import build
from tests.toys import ToyEncoder, curve, picture, series, toy_model, toy_tokenizer

SHORT = Settings(steps=3, batch_size=4, learning_rate=1e-2)
SEEN = [Conversation(((f"<image> w{i % 7}", f"w{i % 5 + 40}"),), (picture(i * 9),)) for i in range(12)]
ASKED = [Prompt("<image> w1 w2", (picture(30),)), Prompt("w3 w4"), Prompt("w5 <image>", (picture(3, 200),))]


@pytest.fixture(autouse=True)
def _registered() -> None:
    series()


def heard() -> list[Conversation]:
    """Conversations about a time series."""
    return [
        Conversation(((f"<series> w{i % 7}", f"w{i % 5 + 30}"),), (curve(*range(i % 9 + 1)),))
        for i in range(12)
    ]


def seeing() -> MultimodalLM:
    torch.manual_seed(1)
    return MultimodalLM(build("gpt_oss"), toy_tokenizer(), {"image": ToyEncoder()})


@torch.no_grad()
def answers(model: MultimodalLM, names: Sequence[str] = ()) -> list[Tensor]:
    """Logits of text and images with these extensions, and the logits' likelihoods in batches."""
    activate(model, names)
    batch = Collator.of(model)(SEEN[:3])
    rated = choice_likelihoods(model, ASKED, [["w1", "w2 w3"]] * 3, batch_size=4)
    return [model(**batch)["logits"], torch.tensor(rated)]


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def bits(model: MultimodalLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def aligned_like(extended: MultimodalLM, bare: MultimodalLM, tmp_path: Path) -> bool:
    """Whether the base alone, aligned with the same data, has the projector of the extended model."""
    moextend.load_projector(bare, tmp_path / "eye")
    moextend.add_modality(bare, "series", "fourier")
    moextend.align(bare, heard(), SHORT, folder=tmp_path / "bare", modality="series")
    ours, theirs = (m.modalities["series"].projector.state_dict() for m in (extended, bare))
    cards = [(tmp_path / name / "projector.json").read_text() for name in ("ear", "bare")]
    assert cards[0] == cards[1] and json.loads(cards[0])["modality"] == "series"
    return all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_nothing_earlier_changes_when_a_modality_comes_and_goes(tmp_path: Path) -> None:
    model = seeing()
    moextend.align(model, SEEN, SHORT, folder=tmp_path / "eye")
    moextend.extend(model, "sees", SEEN, folder=tmp_path / "sees", settings=SHORT, layers=[1])
    base, sees, before = answers(model), answers(model, ["sees"]), bits(model)
    named = active_fingerprint(model)
    random = torch.get_rng_state()
    moextend.add_modality(model, "series", "fourier")
    assert torch.equal(torch.get_rng_state(), random)
    moextend.align(model, heard(), SHORT, folder=tmp_path / "ear", modality="series")
    assert model.lm.training is False and not model.trainable()
    assert aligned_like(model, seeing(), tmp_path)
    moextend.extend(model, "hears", heard(), folder=tmp_path / "hears", settings=SHORT, layers=[1])
    assert equal(answers(model), base) and equal(answers(model, ["sees"]), sees)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    unload(model, "hears")
    assert list(model.modalities) == ["image"]
    assert equal(answers(model), base) and equal(answers(model, ["sees"]), sees)
    assert active_fingerprint(model) == named and list(model.state_dict()) == list(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of extensions "sees" and then, with a new modality that is aligned in "ear", "hears"."""
    series()
    model, made = toy_model(), tmp_path_factory.mktemp("made")
    moextend.extend(model, "sees", SEEN, folder=made / "sees", settings=SHORT, layers=[1], scope="auto")
    activate(model, "none")
    moextend.add_modality(model, "series", "fourier")
    moextend.align(model, heard(), SHORT, folder=made / "ear", modality="series")
    moextend.extend(model, "hears", heard(), folder=made / "hears", settings=SHORT, layers=[1], scope="auto")
    return made


def hearing(made: Path) -> MultimodalLM:
    """A model with both extensions."""
    model = toy_model()
    for name in ("sees", "hears"):
        load_extension(model, made / name)
    return model


def test_an_extension_brings_the_modality_of_its_training(made: Path, tmp_path: Path) -> None:
    model = hearing(made)
    activate(model, "auto")
    asked = [
        Prompt("<series> w1", (curve(1, 2, 3, 4, 5),)),
        Prompt("<image> w3", (picture(9),)),
        Prompt("w1"),
        Prompt("w2 <image> w1 <series>", (picture(7), curve(1))),
    ]
    assert model.choose and model.choose(asked) == [("hears",), ("sees",), (), ()]
    expected = generate(model, asked, max_new_tokens=4, batch_size=2)
    fresh = toy_model()
    load_extension(fresh, made / "hears")
    assert list(fresh.modalities) == ["image", "series"]
    load_extension(fresh, made / "sees")
    activate(fresh, "auto")
    assert generate(fresh, asked, max_new_tokens=4, batch_size=2) == expected
    unload(fresh, "sees")
    assert "series" in fresh.modalities
    unload(fresh, "hears")
    assert list(fresh.modalities) == ["image"]
    assert fresh.base_fingerprint() == toy_model().base_fingerprint()


def name_no_files(folder: Path) -> None:
    """Makes the card of an extension one that names no other files, as that of `save_extension` alone."""
    path = folder / "extension.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": {}}))


def test_task_statistics_of_another_extension_are_refused(made: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(made / "hears", tmp_path / "mixed")
    shutil.copy(made / "sees" / "task_statistics.safetensors", mixed)
    with pytest.raises(
        InputError, match=r"task_statistics\.safetensors: is damaged, or of another extension"
    ):
        load_extension(toy_model(), mixed)


def test_what_misses_is_named(made: Path, tmp_path: Path) -> None:
    model = hearing(made)
    with pytest.raises(InputError, match="its extensions need the present projector"):
        moextend.align(model, heard(), SHORT, folder=tmp_path / "again", modality="series")
    with pytest.raises(InputError, match="the model already has it"):
        moextend.add_modality(model, "series", "fourier")
    fresh = toy_model()
    bare = shutil.copytree(made / "hears", tmp_path / "bare", ignore=shutil.ignore_patterns("modality-*"))
    with pytest.raises(InputError, match=r"modality-series\.json: is missing, and extension\.json names it"):
        load_extension(fresh, bare)
    name_no_files(bare)
    with pytest.raises(InputError, match=r"modality 'series'.*does not have it.*add_modality"):
        load_extension(fresh, bare)
    part = shutil.copytree(
        made / "hears", tmp_path / "part", ignore=shutil.ignore_patterns("*series.safetensors")
    )
    with pytest.raises(InputError, match=r"modality-series\.safetensors: is missing"):
        load_extension(fresh, part)
    with pytest.raises(InputError, match="the model has no series encoder, and so no projector"):
        moextend.load_projector(fresh, made / "ear", modality="series")
    with pytest.raises(InputError, match=r"holds a projector of modality 'series', not 'image'"):
        moextend.load_projector(fresh, made / "ear")


def test_a_modality_that_cannot_be_had_leaves_the_model_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, path = toy_model(), shutil.copytree(made / "hears", tmp_path / "hears") / "modality-series.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"encoder": None}))
    with pytest.raises(InputError, match=r"modality-series\.json: is damaged, or of another extension"):
        load_extension(fresh, path.parent)
    name_no_files(path.parent)
    for change, says in (
        ({"encoder": None}, "has no name to load it by"),
        ({"settings": [1]}, "settings: "),
        ({"fingerprint": "other"}, "is not the one of the training"),
    ):
        path.write_text(json.dumps(card | change))
        with pytest.raises(InputError, match=says):
            load_extension(fresh, path.parent)
        assert list(fresh.modalities) == ["image"] and not moextend.extensions(fresh)


def test_a_projector_is_given_at_once(made: Path, tmp_path: Path) -> None:
    model = hearing(made)
    fresh = toy_model()
    moextend.add_modality(fresh, "series", series().Fourier(), projector=made / "ear")
    assert fresh.base_fingerprint() == model.base_fingerprint()
    fresh = toy_model()
    moextend.add_modality(fresh, "series", series().Fourier(), projector=made / "hears")
    load_extension(fresh, made / "hears")
    assert fresh.base_fingerprint() == model.base_fingerprint()
    unload(fresh, "hears")
    with pytest.raises(InputError, match=r"holds no projector"):
        moextend.add_modality(fresh, "series", "fourier", projector=tmp_path)
    with pytest.raises(UnknownName, match="no modality 'smell'"):
        moextend.add_modality(fresh, "smell", "nose")
    unfit: Any = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match="Linear lacks width, tokens"):
        moextend.add_modality(fresh, "series", unfit)
    assert list(fresh.modalities) == ["image"]
