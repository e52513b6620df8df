"""`extend` on own data: training, saving, interruption, refused arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import moextend
from moextend import Conversation, MultimodalLM, Recipe, Settings, extend, load_extension
from moextend.errors import InputError
from tests.toys import ToyEncoder, logits, picture, toy_lm, toy_model, toy_tokenizer

DATA = [Conversation(((f"<image> w{i % 7}", f"w{i % 5 + 40}"),), (picture(i * 9),)) for i in range(24)]
SHORT = Settings(steps=6, batch_size=4, learning_rate=1e-2, checkpoint_steps=2)


def bits(model: MultimodalLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_an_extension_is_learned_kept_and_loaded_bit_for_bit(tmp_path: Path, ids: Tensor) -> None:
    model, fresh = toy_model(), toy_model()
    before, steps = bits(model), list[tuple[int, int]]()
    made = extend(model, "mine", DATA, folder=tmp_path / "mine", experts=2, share=0.4, probe_steps=2,
                  settings=SHORT, on_step=lambda done, total: steps.append((done, total)))  # fmt: skip
    assert (made.name, made.mode, made.coactive, made.folder) == ("mine", "exact", (), tmp_path / "mine")
    assert [len(parents) for parents in made.plan.values()] == [2], "40% of three layers is one"
    assert made.parameters == 2 * (3 * 32 * 8 + 32 + 1) and made.bytes == 4 * made.parameters
    assert steps == [(1, 2), (2, 2), *((step, 6) for step in range(1, 7))], "the probe, then the training"
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert not model.trainable() and moextend.extensions(model) == [made]
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "extension.json", "extension.safetensors", "log.jsonl", "task_statistics.safetensors",
    ]  # fmt: skip
    base = logits(fresh, ids)
    assert load_extension(fresh, tmp_path / "mine") == made
    assert torch.equal(logits(fresh, ids), logits(model, ids)) and not torch.equal(logits(fresh, ids), base)


def test_a_recipe_and_its_fields_mean_the_same(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"layers": "last", "experts": 2, "routing": "paper"}
    model = toy_model()
    made = extend(model, "mine", DATA, folder=tmp_path / "a", settings=SHORT, **fields)
    card = json.loads((tmp_path / "a" / "extension.json").read_text())["made"]
    assert made.mode == "paper" and made.plan.keys() == {2}
    assert card["recipe"] == Recipe(**fields).model_dump()
    assert card["settings"] == SHORT.model_dump(mode="json")
    for wrong, message in (
        ({"recipe": Recipe(), "layers": "all"}, "both a recipe and layers are given"),
        ({"recipe": fields}, "is not a recipe"),
    ):
        with pytest.raises(InputError, match=message):
            extend(model, "more", DATA, folder=tmp_path / "c", settings=SHORT, **wrong)
    with pytest.raises(InputError, match=r"^recipe: share: Input should be less than or equal to 1"):
        Recipe(share=2)


def test_an_interrupted_call_leaves_the_model_as_it_was_and_goes_on(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if (done, total) == (3, stops[0]):
            raise KeyboardInterrupt

    how: dict[str, Any] = {"settings": SHORT, "probe_steps": 4, "layers": "probe"}
    whole, model, seen, stops = toy_model(), toy_model(), list[int](), [4, 6]
    extend(whole, "mine", DATA, folder=tmp_path / "whole", **how)
    before = bits(model)
    while stops:  # in the probe, then in the training
        with pytest.raises(KeyboardInterrupt):
            extend(model, "mine", DATA, folder=tmp_path / "mine", on_step=stop, **how)
        stops.pop(0)
        assert moextend.extensions(model) == [] and not model.trainable()
        now = model.state_dict()
        assert set(now) == set(before) and all(torch.equal(now[key], was) for key, was in before.items())
    with pytest.raises(InputError, match="started with other arguments"):
        extend(model, "mine", DATA, folder=tmp_path / "mine", **how | {"experts": 2})
    extend(model, "mine", DATA, folder=tmp_path / "mine", on_step=lambda *at: seen.append(at[0]), **how)
    assert seen == [3, 4, 5, 6]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_scope_all_is_made_with_the_active_ones(model: MultimodalLM, tmp_path: Path, ids: Tensor) -> None:
    how: dict[str, Any] = {"scope": "all", "layers": "all", "settings": SHORT, "memory_tokens": 40}
    text = [Conversation(((f"w{i} w{i + 1}", ""),)) for i in range(9)]
    extend(model, "a", DATA, folder=tmp_path / "a", generic=text, **how)
    made = extend(model, "b", DATA[::-1], folder=tmp_path / "b", **how)
    assert made.coactive == ("a",)
    fresh = toy_model()
    load_extension(fresh, tmp_path / "a")
    assert load_extension(fresh, tmp_path / "b") == made
    assert torch.equal(logits(fresh, ids), logits(model, ids))
    extend(model, "d", DATA, folder=tmp_path / "d", retention="memory", **how)
    moextend.detach(model.lm, "d")
    own = extend(model, "c", DATA, folder=tmp_path / "c", scope="own", layers="first", settings=SHORT)
    assert own.coactive == ()
    with pytest.raises(InputError, match="'c' is active and has no router-input memory"):
        extend(model, "e", DATA, folder=tmp_path / "e", **how)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("a.b", {}, "cannot be the name"),
        ("old", {}, "already has an extension of this name"),
        ("new", {"folder": "old"}, "already holds an extension"),
        ("new", {"data": DATA[:1]}, "1 conversations"),
        ("new", {"held_out": []}, "and 0 for choosing layers"),
        ("new", {"layers": "some"}, "'new': layers: name probe, all, first, last, random, or indices"),
        ("new", {"layers": [1, 3]}, "MoE layers 0 to 2"),
        ("new", {"routing": "paper"}, "share one mode"),
        ("new", {"prob_steps": 3}, "Did you mean 'probe_steps'"),
        (
            "new",
            {"data": [Conversation((("w1", "w2"),), (picture(1),))] * 9},
            "1 image, but 0 <image> marks ",
        ),
    ],
)
def test_extend_refuses(name: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = toy_model()
    moextend.attach(model.lm, "old", {0: [1]})
    moextend.save_extension(model, "old", folder=tmp_path / "old")
    before = moextend.extensions(model)
    call: dict[str, Any] = {"data": DATA, "folder": "new", "layers": "first", "settings": SHORT} | change
    with pytest.raises(InputError, match=message):
        extend(model, name, call.pop("data"), folder=tmp_path / call.pop("folder"), **call)
    assert moextend.extensions(model) == before and moextend.moe.attach.scope_of(model.lm).active == ("old",)


def test_a_projector_is_aligned_once(tmp_path: Path) -> None:
    model, fresh = toy_model(), toy_model()
    before, base = bits(model), model.base_fingerprint()
    report = moextend.align(model, DATA, SHORT, folder=tmp_path / "p")
    trained = model.modalities["image"].projector.parameters()
    assert report.trained_parameters == sum(p.numel() for p in trained)
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed and all(".projector." in name for name in changed) and not model.trainable()
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "projector.json",
        "projector.safetensors",
    ]
    moextend.load_projector(fresh, tmp_path / "p")
    assert fresh.base_fingerprint() == model.base_fingerprint() != base
    with pytest.raises(InputError, match="already holds a projector"):
        moextend.align(model, DATA, SHORT, folder=tmp_path / "p")
    with pytest.raises(InputError, match="holds no projector"):
        moextend.load_projector(model, tmp_path)
    with pytest.raises(InputError, match="have no image"):
        moextend.align(model, [Conversation((("w1", "w2"),))] * 3, SHORT, folder=tmp_path / "q")
    assert not (tmp_path / "q").exists()
    with pytest.raises(InputError, match="no image encoder"):
        moextend.align(MultimodalLM(toy_lm(), toy_tokenizer()), DATA, SHORT, folder=tmp_path / "q")
    with pytest.raises(InputError, match="another language model, quantisation or encoder"):
        moextend.load_projector(toy_model("olmoe"), tmp_path / "p")
    moextend.attach(model.lm, "a", {0: [1]})
    for call in (lambda: moextend.align(model, DATA, SHORT, folder=tmp_path / "q"),
                 lambda: moextend.load_projector(model, tmp_path / "p")):  # fmt: skip
        with pytest.raises(InputError, match="its extensions need the present projector"):
            call()


TEXT = [Conversation(((f"w{i % 7} w{i % 11}", f"w{i % 5 + 40}"),)) for i in range(40)]


def test_media_need_a_projector_that_was_aligned_or_loaded(tmp_path: Path) -> None:
    one = Settings(steps=1, batch_size=2, learning_rate=1e-3)

    def fresh() -> MultimodalLM:
        return MultimodalLM(toy_lm(), toy_tokenizer(), {"image": ToyEncoder()})

    model, loaded = fresh(), fresh()
    for data in (DATA, TEXT + DATA[:1]):
        with pytest.raises(InputError, match=r"projector of modality 'image' is random.*moextend\.align"):
            extend(model, "a", data, folder=tmp_path / "a", settings=SHORT, layers=[0])
    assert not (tmp_path / "a").exists() and not moextend.extensions(model)
    moextend.align(model, DATA, one, folder=tmp_path / "p")
    moextend.load_projector(loaded, tmp_path / "p")
    for place, ready in enumerate((model, loaded)):
        extend(ready, "a", DATA, folder=tmp_path / str(place), settings=one, layers=[0])
