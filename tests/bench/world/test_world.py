"""Scenes, sounds and data sets of the world: the same everywhere, divided without overlap, and written once."""

import hashlib
import io
import random
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas
import pytest
from PIL import Image

from moextend.bench.world import data, words
from moextend.bench.world import render as rendering
from moextend.bench.world.data import VIEWS, asked_scenes, heard, view_of
from moextend.bench.world.hearing import HEARINGS, Performance, Recital, draw_recital
from moextend.bench.world.questions import ASKERS
from moextend.bench.world.render import DRAWN, DUSK, PLAIN, png, render, styles
from moextend.bench.world.scenes import WORLD_VERSION, Scene, Split, any_scene, caption
from moextend.bench.world.sound import RATE, REGISTERS, Melody, Note
from moextend.bench.world.speech import Utterance
from moextend.errors import UnknownName
from tests.bench.world import vocabulary

IMAGES = (*ASKERS, data.CAPTIONS, *VIEWS)
FEW = {"train": 30, "test": 20}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGES", "CAPTIONED", "SOUNDS", "MATCHED", "RECITED"):
        monkeypatch.setattr(data, name, FEW)


def drawn(seed: int, count: int) -> list[Scene]:
    rng = random.Random(seed)
    return [any_scene(rng) for _ in range(count)]


def digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


def test_scenes_and_pixels_of_every_domain_are_the_same_on_every_machine() -> None:
    assert digest("\n".join(map(caption, drawn(0, 200))).encode() for _ in "1") == "b6fb27b6"
    assert digest(render(scene).tobytes() for scene in drawn(0, 200)) == "8ba9a278"
    found = [digest(render(s, domain).tobytes() for s in drawn(0, 20)) for domain in (PLAIN, DUSK)]
    assert found == ["5fccb031", "b394129d"]
    of_seeds = {
        kind: digest(
            render(s, rendering.drawn(kind, place + 1, seed)).tobytes()
            for seed in (0, 10)
            for place in range(DRAWN[kind][1])
            for s in drawn(0, 5)
        )
        for kind in DRAWN
    }
    assert of_seeds == {"style": "97ec3902", "rule": "dde61d8b", "turn": "ada17efd"}
    scene = drawn(1, 1)[0]
    assert (np.asarray(Image.open(io.BytesIO(png(scene)))) == render(scene)).all()


def test_what_is_asked_and_answered_is_the_same_on_every_machine() -> None:
    asked = {
        name: digest(
            f"{q.kind} {q.words} {q.answer}\n".encode()
            for split in get_args(Split)
            for _, questions in (heard if name in HEARINGS else asked_scenes)(name, split)
            for q in questions
        )
        for name in ASKED
    }
    assert asked == ASKED and ASKED.keys() >= set(data.DATASETS)
    known = vocabulary()
    for name in ASKED:
        assert all(
            set(f"{row['question']} {row['answer']}".split()) <= known for row in data.rows(name, "test")
        )


def test_a_fifth_of_the_scenes_is_held_out() -> None:
    scenes = drawn(3, 2000)
    assert 340 < sum(scene.split() == "test" for scene in scenes) < 460


def test_train_and_test_share_no_scene() -> None:
    train, test = (
        {caption(scene) for name in IMAGES for scene, _ in asked_scenes(name, split)}
        for split in get_args(Split)
    )
    assert len(test) > 200 and not train & test


@pytest.mark.parametrize("seed", [0, 12])
def test_rules_name_every_color_differently_on_every_ground(seed: int) -> None:
    rules = [view_of(f"rule-{place}-coloring@{seed}") for place in (1, 2, 3)]
    for scene in drawn(1, 100):
        plain = {q.words: q.answer for q in data.coloring(scene)}
        asked = [{q.words: q.answer for q in rule.questions(scene)} for rule in rules]
        for question, color in plain.items():
            answers = [own[question] for own in asked]
            assert answers == [rule.domain.names[color] for rule in rules] and len(set(answers)) == 3


def test_a_turn_goes_from_plain_to_a_style_in_equal_steps() -> None:
    for seed in range(15):
        first, *_, last = steps = rendering.turns(seed, 5)
        assert first.palette == PLAIN.palette and first.ground == (0, 0, 0)
        for place, step in enumerate(steps):
            for color, rgb in step.palette.items():
                ends = zip(first.palette[color], last.palette[color], strict=True)
                assert rgb == pytest.approx([a + place / 4 * (b - a) for a, b in ends], abs=1)
        assert len({rgb for step in steps for rgb in step.palette.values()}) > 24


def test_a_seed_has_styles_and_scenes_of_its_own() -> None:
    assert styles(3, 2) == styles(3, 4)[:2] != styles(4, 2)
    one, other = (
        [caption(scene) for scene, _ in asked_scenes(f"style-1-looking@{seed}", "test")] for seed in (3, 4)
    )
    assert len(one) == len(other) == FEW["test"] and one != other
    for name in ("style-5-looking@0", "rule-1-coloring", "style-1-looking@x", "plain-looking@1"):
        with pytest.raises(UnknownName, match=f"no data set of the generated world '{name}'"):
            data.materialise(name, Path("never"))


def test_drawn_styles_are_legible() -> None:
    for style in (*styles(1, 20), *(step for seed in range(10) for step in rendering.turns(seed, 5))):
        colors = np.array([*style.palette.values(), np.clip(225 + np.array(style.ground), 0, 255), style.ink])
        apart = np.linalg.norm(colors[:, None] - colors, axis=-1)
        assert colors.min() >= 0 and colors.max() <= 255
        assert (apart + 1000 * np.eye(len(colors))).min() >= 60


def test_pitches_are_in_their_registers_and_spans_hold_the_notes() -> None:
    for row, middle in REGISTERS.items():
        for color in words.COLORS:
            samples, ((start, end),) = Melody((Note(color, row, "big"),), 1, 1).performed()
            power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 14)) ** 2
            at = np.fft.rfftfreq(1 << 14, 1 / RATE)
            around = (at > middle / 1.4) & (at < middle * 1.4)
            assert power[around].sum() > 0.15 * power.sum() > 1.5 * power[at < middle / 1.7].sum()
            quiet = np.abs(samples[: int(start * RATE)]).max()
            assert np.abs(samples[int(start * RATE) : int(end * RATE)]).max() > 1.2 * quiet


def test_a_performance_sounds_the_same_every_time_and_other_takes_differ() -> None:
    notes = (Note("green", "top", "big"), Note("cyan", "bottom", "small"))
    for one, again, other in (
        [Melody(notes, 3, take).performed() for take in (1, 1, 2)],
        [Utterance(("A", "3"), 1, take).performed() for take in (1, 1, 2)],
    ):
        assert (one.samples == again.samples).all() and one.spans == again.spans
        assert one.samples[: len(other.samples)].tolist() != other.samples[: len(one.samples)].tolist()


def test_a_recital_plays_and_says_its_things_from_left_to_right() -> None:
    recital = draw_recital(random.Random(3), "test")
    samples, spans = recital.performed()
    assert isinstance(recital, Recital) and [thing.column for thing in recital.things] == [0, 1, 2]
    assert len(spans) == 6 and spans[-1][1] < len(samples) / RATE < 3.5


@pytest.mark.parametrize("name", ["counting", data.CAPTIONS, "match", "scenes"])
def test_files_are_written_once_and_the_same(name: str, tmp_path: Path) -> None:
    folder = data.materialise(name, tmp_path)
    assert folder == tmp_path / f"{name}-v{WORLD_VERSION}"
    assert sorted(path.name for path in folder.iterdir()) == ["test.parquet", "train.parquet"]
    train, test = (pandas.read_parquet(folder / f"{split}.parquet") for split in ("train", "test"))
    group = "group" if name in HEARINGS else "image_id"
    media = (
        ["audio", *(["image", "text"] if name in ("match", "scenes") else [])]
        if group == "group"
        else ["image"]
    )
    assert list(train.columns) == ["question_id", group, *media, "question", "answer", "kind"]
    assert (
        train.question_id.is_unique
        and train[group].nunique() == 30
        and len(test) == test[group].nunique() == 20
    )
    before = (folder / "train.parquet").stat().st_mtime_ns
    (folder / "test.parquet").unlink()
    data.materialise(name, tmp_path)
    assert (folder / "train.parquet").stat().st_mtime_ns == before
    again = data.materialise(name, tmp_path / "again")
    assert all(
        (again / file).read_bytes() == (folder / file).read_bytes()
        for file in ("train.parquet", "test.parquet")
    )


def test_an_unknown_name_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'counting'"):
        data.materialise("countin", tmp_path)


def test_train_and_test_share_no_performer_and_no_content_of_several_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SOUNDS", "MATCHED", "RECITED"):
        monkeypatch.setattr(data, name, {"train": 200, "test": 100})
    for task in HEARINGS:
        train, test = ([one.sound for one, _ in heard(task, split)] for split in ("train", "test"))
        for find in (performer, heard_words):
            assert not ({find(one) for one in train} & {find(one) for one in test}) - {None}


def performer(one: Performance) -> int:
    match one:
        case Melody(_, number) | Utterance(_, number) | Recital(_, number):
            return number


def heard_words(one: Performance) -> str | None:
    """A single note or sign is in both, by other performers."""
    return one.described() if " ; " in one.described() else None


ASKED = {
    "attributes": "ca18e4f2", "counting": "60202e6b", "reading": "81d45f38", "position": "c53f879a",
    "comparison": "80ad8d94", "captions": "7cc5b919", "timbre": "e48c9e47", "melody": "2973a067",
    "spoken": "c24982c0", "match": "871a708b", "scenes": "6bb47e7d", "sounds": "799199da",
    "plain-looking": "b7fb2461",
    "style-1-looking@0": "d0c7850d", "style-4-looking@10": "fcc76dce", "rule-3-coloring@10": "312c421f",
    "turn-5-looking@10": "033a1fe4", "dusk-attributes": "c681b549", "dusk-counting": "826f1510",
    "dusk-reading": "dc9b57dc", "dusk-position": "96a07ee3", "dusk-comparison": "b4ca24f9",
}  # fmt: skip
"""Data set -> digest of its first questions and answers."""
