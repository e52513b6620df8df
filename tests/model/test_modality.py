"""Prompts with media of several modalities, in any order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import moextend
from moextend import Conversation, MultimodalLM, Prompt, generate
from moextend.data import modalities as kinds
from moextend.errors import InputError, RunFailed
from moextend.model.batches import Collator
from moextend.model.chat import chat_of
from moextend.model.feature_cache import store_features
from moextend.model.generation import choice_likelihoods
from tests.toys import ToyEncoder, curve, picture, series, toy_lm, toy_model, toy_tokenizer

TOY = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ ' w50 ' + m.content + ' w51' }}"
    "{% else %}{{ ' ' + m.content + ' <eos>' }}{% endif %}{% endfor %}"
)


@pytest.fixture(params=["plain", "chat"])
def model(request: pytest.FixtureRequest) -> MultimodalLM:
    series()
    torch.manual_seed(1)
    made = MultimodalLM(toy_lm(), toy_tokenizer(), {"image": ToyEncoder(), "series": series().Fourier()})
    with torch.no_grad():
        for modality in made.modalities.values():
            modality.projector.outer.weight.mul_(3)
    if request.param == "chat":
        made.tokenizer.chat_template = TOY
        made.chat = chat_of(made.tokenizer, None)
    return made


def mixed() -> list[Prompt]:
    """Prompts with image and series in any order, over turns, and without media."""
    return [
        Prompt("<image> w1 <series>", (picture(9), curve(1, 2, 3, 4, 5))),
        Prompt("<series> w1 <image>", (curve(1, 2, 3, 4, 5), picture(9))),
        Prompt("w1 w2"),
        Prompt(
            "<series> w7 <image>",
            (picture(80), curve(*range(13)), curve(2), picture(0, 90)),
            before=(("<image> w3 <series>", "w4"), ("w5", "w6")),
        ),
        Prompt("<series>", (curve(7, 7),)),
    ]


def test_every_medium_stands_in_its_place(model: MultimodalLM) -> None:
    talks = [Conversation((*prompt.before, (prompt.text, "w8")), prompt.media) for prompt in mixed()]
    collate = Collator.of(model)
    batch = collate(talks)
    assert torch.equal(collate.ids(talks)["attention_mask"], batch["attention_mask"])
    embedded = model.embed(batch["input_ids"], batch["features"])
    for row, ids, talk in zip(embedded, batch["input_ids"], talks, strict=True):
        places = (ids < 0).nonzero().squeeze(1).tolist()
        for medium in talk.media:
            modality = model.modalities[medium.modality]
            expected = modality.projector(modality.encode([medium])[0])
            mine, places = places[: len(expected)], places[len(expected) :]
            assert torch.allclose(row[mine], expected, atol=1e-6)
        assert not places
    text = Collator(
        model.tokenizer, moextend.MultimodalLM(toy_lm(), toy_tokenizer()).modalities, chat=model.chat
    )
    alone = text.ids(talks[2:3])["input_ids"][0]
    assert torch.equal(alone, batch["input_ids"][2][: len(alone)])


def test_a_batch_equals_its_prompts_one_at_a_time(model: MultimodalLM) -> None:
    alone = [generate(model, [prompt], max_new_tokens=5, batch_size=1)[0] for prompt in mixed()]
    assert len(set(alone)) > 2
    for size in (2, 5):
        assert generate(model, mixed(), max_new_tokens=5, batch_size=size) == alone
    choices = [["w1", "w2 w3"]] * 5
    one = [choice_likelihoods(model, [prompt], [["w1", "w2 w3"]], batch_size=1)[0] for prompt in mixed()]
    together = choice_likelihoods(model, mixed(), choices, batch_size=6)
    assert torch.allclose(torch.tensor(one), torch.tensor(together), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "media", "message"),
    [
        ("<series> w1", "image", "1 image, but 0 <image> marks"),
        ("w1", "series", "1 time series, but 0 <series> marks"),
        ("<series> w1 <series>", "series", "1 time series, but 2 <series> marks "),
        ("<series> <image>", "image series", "mark 1 of the prompt is <series>, but medium 1 is an image"),
        ("w1", "text", "is not an image or another medium"),
    ],
)
def test_marks_and_media_must_agree(model: MultimodalLM, text: str, media: str, message: str) -> None:
    made: dict[str, Any] = {"image": picture(1), "series": curve(1), "text": "x"}
    given = tuple(made[name] for name in media.split())
    with pytest.raises(InputError, match=message):
        generate(model, [Prompt(text, given)], max_new_tokens=1, batch_size=1)
    with pytest.raises(InputError, match=message):
        Collator.of(model)([Conversation(((text, "w1"),), given)])


def test_a_medium_needs_the_encoder_of_its_modality() -> None:
    series()
    message = re.escape(
        "the prompt has a time series, but the model has no series encoder. Load the model with "
        "encoders={'series': ...}, add an encoder with moextend.add_modality, or leave the time series out."
    )
    model = toy_model()
    with pytest.raises(InputError, match=f"prompt 0: {message}"):
        generate(model, [Prompt("<series>", (curve(1),))], max_new_tokens=1, batch_size=1)
    with pytest.raises(InputError, match=message):
        Collator.of(model)([Conversation((("<series>", "w1"),), (curve(1),))])


class Wrong:
    """Another number of tokens than stated."""

    def tokens_of(self, medium: object) -> int:
        return 3


def test_an_encoder_gives_as_many_tokens_as_it_states(
    model: MultimodalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series().Fourier, "tokens_of", Wrong.tokens_of)
    with pytest.raises(InputError, match=r"features of shape \(1, 8\), but declares \(3, 8\)"):
        generate(model, [Prompt("<series>", (curve(1),))], max_new_tokens=1, batch_size=1)
    model.modalities["series"].features = lambda media: [torch.zeros(2, 8) for _ in media]
    with pytest.raises(RunFailed, match="3 placeholders and 2 tokens of modality 'series'"):
        generate(model, [Prompt("<series>", (curve(1),))], max_new_tokens=1, batch_size=1)


def test_a_model_is_loaded_with_encoders(tmp_path: Path) -> None:
    series()
    model = moextend.load("tiny", vision="tiny", encoders={"series": "fourier"})
    assert list(model.modalities) == ["image", "series"]
    assert model.base_fingerprint(["image"]) == moextend.load("tiny", vision="tiny").base_fingerprint()
    assert model.base_fingerprint([]) == moextend.load("tiny").base_fingerprint()
    answer = generate(model, [Prompt("<series> What?", (curve(1, 2),))], max_new_tokens=2, batch_size=1)
    assert isinstance(answer[0], str)


@pytest.mark.parametrize("place", ["open", "tokens_of", "encoder"])
def test_a_foreign_exception_names_its_medium(
    place: str, model: MultimodalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = type(curve(1))(data=b"x\n1\n2", where="s.csv row 3")
    encoder: Any = model.modalities["series"].encoder

    def fails(*args: Any) -> Any:
        raise ValueError("two\nlines.")

    if place == "open":
        monkeypatch.setattr(type(bad), "open", fails)
    else:
        monkeypatch.setattr(type(encoder), "tokens_of" if place == "tokens_of" else "forward", fails)
    store_features(model, tmp_path)
    with pytest.raises(
        InputError, match=r"^s.csv row 3: the time series cannot be encoded \(ValueError: two lines\)"
    ):
        generate(model, [Prompt("<series> w1", (bad,))], max_new_tokens=1, batch_size=1)


def test_another_package_brings_a_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        def load(self) -> kinds.ModalityType:
            return kinds.ModalityType(ref=series().SeriesRef, load_encoder=lambda name: series().Fourier())

    series()
    monkeypatch.setattr(kinds, "_TYPES", {k: v for k, v in kinds._TYPES.items() if k != "series"})
    monkeypatch.setattr(kinds, "entry_points", lambda group: [Point()] if group == kinds.GROUP else [])
    monkeypatch.setattr(kinds, "_others", kinds._others.__wrapped__)
    model = toy_model()
    moextend.add_modality(model, "series", "fourier")
    assert generate(model, [Prompt("<series> w1", (curve(1),))], max_new_tokens=1, batch_size=1)
