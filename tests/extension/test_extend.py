"""`extend` on own data: training, saving, interruption, refused arguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import moextend
from moextend import Conversation, MultimodalLM, Recipe, Settings, extend, load_extension
from moextend.errors import InputError
from moextend.model.feature_cache import AHEAD, BATCH
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
    models = toy_model(), toy_model()
    extend(models[0], "mine", DATA, folder=tmp_path / "a", settings=SHORT, **fields)
    extend(models[1], "mine", DATA, folder=tmp_path / "b", settings=SHORT, recipe=Recipe(**fields))
    one, other = map(bits, models)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    cards = [json.loads((tmp_path / name / "extension.json").read_text())["made"] for name in "ab"]
    assert cards[0]["recipe"] == cards[1]["recipe"] == Recipe(**fields).model_dump()
    assert cards[0]["settings"] == SHORT.model_dump(mode="json")
    for wrong, message in (
        ({"recipe": Recipe(), "layers": "all"}, "both a recipe and layers are given"),
        ({"recipe": fields}, "is not a recipe"),
    ):
        with pytest.raises(InputError, match=message):
            extend(models[0], "more", DATA, folder=tmp_path / "c", settings=SHORT, **wrong)
    with pytest.raises(InputError, match=r"^recipe: share: Input should be less than or equal to 1"):
        Recipe(share=2)


def test_a_preview_names_what_would_be_chosen_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model = toy_model()
    before = bits(model)
    how: dict[str, Any] = {"share": 0.7, "experts": 2, "probe_steps": 2, "settings": SHORT}
    found = moextend.preview(model, DATA, **how)
    assert len(found.plan) == 2 and len(found.probe.change) == 3 and max(found.probe.change) > 0
    assert not moextend.extensions(model) and not model.trainable()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert extend(model, "a", DATA, folder=tmp_path / "a", **how).plan == found.plan
    with pytest.raises(InputError, match="share: Input should be less"):
        moextend.preview(model, DATA, share=2)
    with pytest.raises(InputError, match="there are 1 conversations"):
        moextend.preview(model, DATA[:1])


@pytest.mark.parametrize("phase", ["probe", "train"])
def test_an_interrupted_call_leaves_the_model_as_it_was_and_goes_on(phase: str, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        seen.append(done)
        if (done, total) == (3, {"probe": 4, "train": 6}[phase]):
            raise KeyboardInterrupt

    seen: list[int] = []
    how: dict[str, Any] = {"settings": SHORT, "probe_steps": 4, "layers": "probe"}
    whole, model = toy_model(), toy_model()
    extend(whole, "mine", DATA, folder=tmp_path / "whole", **how)
    before = bits(model)
    with pytest.raises(KeyboardInterrupt):
        extend(model, "mine", DATA, folder=tmp_path / "mine", on_step=stop, **how)
    assert moextend.extensions(model) == [] and not model.trainable()
    now = model.state_dict()
    assert set(now) == set(before) and all(torch.equal(now[name], tensor) for name, tensor in before.items())
    with pytest.raises(InputError, match="started with other arguments"):
        extend(model, "mine", DATA, folder=tmp_path / "mine", **how | {"experts": 2})
    seen.clear()
    extend(model, "mine", DATA, folder=tmp_path / "mine", on_step=lambda *at: seen.append(at[0]), **how)
    assert seen == ([3, 4, 1, 2, 3, 4, 5, 6] if phase == "probe" else [3, 4, 5, 6])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


class Reader(Sequence[Conversation]):
    """Knows no slices, and reads an item when it is asked for."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, at: Any) -> Any:
        self.read.append(at)
        return DATA[range(1000)[at] % 24]


def test_data_are_read_when_they_are_needed(model: MultimodalLM, tmp_path: Path) -> None:
    data, held = Reader(), Reader()
    extend(model, "mine", data, folder=tmp_path, layers=[1], scope="own", settings=SHORT)
    assert len(data.read) == 3 * 100 + 2 * 6 * 4, (
        "a tenth is held out, and read again to fill batches of the encoder; what is learned is read for its name, too"
    )
    assert not set(data.read[24:124]) & {*data.read[:24], *data.read[-24:]}
    moextend.unload(model, "mine")
    extend(
        model,
        "b",
        DATA[:2],
        folder=tmp_path / "b",
        held_out=held,
        layers="first",
        scope="own",
        settings=SHORT,
    )
    ahead = AHEAD * BATCH
    assert held.read == [
        *range(1000), *range(4), *range(BATCH), *range(4, 20), *range(BATCH, BATCH + ahead), *range(20, 1000)
    ], "for their names, and then in order; twice more ahead, to fill a batch of the encoder"  # fmt: skip
    assert moextend.extensions(model)[0].plan.keys() == {0}


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
        ("auto", {}, "none of: all, none, auto"),
        ("old", {}, "already has an extension of this name"),
        ("new", {"folder": "old"}, "already holds an extension"),
        ("new", {"data": DATA[:1]}, "1 conversations"),
        ("new", {"held_out": []}, "and 0 for choosing layers"),
        ("new", {"share": 0.0}, "'new': share"),
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
    assert model.projector
    assert report.trained_parameters == sum(p.numel() for p in model.projector.parameters())
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed and all(".projector." in name for name in changed) and not model.trainable()
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "projector.json",
        "projector.safetensors",
    ]
    moextend.load_projector(fresh, tmp_path / "p")
    assert fresh.base_fingerprint() == model.base_fingerprint() != base
    again = toy_model()
    moextend.align(again, DATA, SHORT, folder=tmp_path / "again")
    assert again.base_fingerprint() == model.base_fingerprint(), "of the seed and the data alone"
    with pytest.raises(InputError, match="already holds a projector"):
        moextend.align(model, DATA, SHORT, folder=tmp_path / "p")
    with pytest.raises(InputError, match="holds no projector"):
        moextend.load_projector(model, tmp_path)
    with pytest.raises(InputError, match="have no image"):
        moextend.align(model, [Conversation((("w1", "w2"),))] * 3, SHORT, folder=tmp_path / "q")
    assert not (tmp_path / "q").exists()
    with pytest.raises(InputError, match="no image encoder"):
        moextend.align(MultimodalLM(toy_lm(), toy_tokenizer()), DATA, SHORT, folder=tmp_path / "q")
    with pytest.raises(InputError, match="another language model or encoder"):
        moextend.load_projector(toy_model("olmoe"), tmp_path / "p")
    moextend.attach(model.lm, "a", {0: [1]})
    for call in (lambda: moextend.align(model, DATA, SHORT, folder=tmp_path / "q"),
                 lambda: moextend.load_projector(model, tmp_path / "p")):  # fmt: skip
        with pytest.raises(InputError, match="its extensions need the present projector"):
            call()


TEXT = [Conversation(((f"w{i % 7} w{i % 11}", f"w{i % 5 + 40}"),)) for i in range(40)]


def test_media_need_a_projector_that_was_aligned_or_loaded(tmp_path: Path) -> None:
    model = MultimodalLM(toy_lm(), toy_tokenizer(), ToyEncoder())
    for place in (DATA, TEXT + DATA[:1]):
        for call in (
            lambda data: extend(model, "a", data, folder=tmp_path / "a", settings=SHORT, layers=[0]),
            lambda data: moextend.preview(model, data, settings=SHORT, probe_steps=1),
        ):
            with pytest.raises(InputError, match=r"projector of modality 'image' is random.*moextend\.align"):
                call(place)
    assert not (tmp_path / "a").exists() and not moextend.extensions(model)
    moextend.preview(model, TEXT, settings=SHORT, probe_steps=1)
    moextend.align(model, DATA, Settings(steps=1, batch_size=2, learning_rate=1e-3), folder=tmp_path / "p")
    loaded = MultimodalLM(toy_lm(), toy_tokenizer(), ToyEncoder())
    moextend.load_projector(loaded, tmp_path / "p")
    for ready in (model, loaded):
        moextend.preview(ready, DATA, settings=SHORT, probe_steps=1)
