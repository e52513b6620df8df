"""Domains: the same scenes drawn otherwise or named otherwise, and visible to the shipped encoder."""

import hashlib
import random
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest

from moextend.bench.sequence import read_sequence
from moextend.bench.task import find_task
from moextend.bench.world import data, measure
from moextend.bench.world.data import asked_scenes
from moextend.bench.world.domains import DOMAINS, DRIFT, HUES, PLAIN, RGB
from moextend.bench.world.questions import majority_level
from moextend.bench.world.render import render
from moextend.bench.world.scenes import Scene, Split, any_scene
from moextend.bench.world.views import VIEWS, looking, view_of
from moextend.bench.world.words import COLORS
from moextend.util import content

NOWHERE = Path("nowhere")
GROUNDS = ("bright", "dim", "dark")
SEQUENCES = ("tiny-alike", "tiny-conflict", "tiny-long", "tiny-repeat", "tiny-drift")


def drawn(seed: int, count: int) -> list[Scene]:
    rng = random.Random(seed)
    return [any_scene(rng) for _ in range(count)]


def test_pixels_of_every_domain_are_the_same_on_every_machine() -> None:
    scenes = drawn(0, 20)
    found = {
        name: hashlib.sha256(b"".join(render(scene, domain).tobytes() for scene in scenes)).hexdigest()[:8]
        for name, domain in DOMAINS.items()
    }
    assert found == {
        "plain": "5fccb031",
        "night": "0cd4f163",
        "pastel": "4f72effa",
        "sketch": "bfff02d6",
        "negative": "5b2dbd12",
        "dusk": "b394129d",
        "bright": "5fccb031",
        "dim": "c28a039b",
        "dark": "e4feef3e",
        "drift-1": "5fccb031",
        "drift-2": "9a916c7f",
        "drift-3": "b394129d",
        "drift-4": "fa48c0ff",
        "drift-5": "a7888df2",
    }
    assert [name for name in found if found[name] == found["plain"]] == ["plain", "bright", "drift-1"]


def test_no_scene_is_trained_in_one_domain_and_scored_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "IMAGES", {"train": 200, "test": 100})
    contents: dict[str, set[str]] = {
        split: {scene.content() for name in VIEWS for scene, _ in asked_scenes(name, split)}
        for split in get_args(Split)
    }
    assert len(contents["test"]) > 1000
    assert not contents["train"] & contents["test"]


def test_a_question_has_another_right_answer_on_every_ground() -> None:
    for scene in drawn(1, 200):
        asked = [
            {q.words: q.answer for q in view_of(f"{name}-coloring").questions(scene)} for name in GROUNDS
        ]
        plain = {q.words: q.answer for q in view_of("plain-looking").questions(scene)}
        places = [COLORS.index(plain[f"what color at {thing.place}"]) for thing in scene.things]
        for steps, own in enumerate(asked):
            assert own.keys() == asked[0].keys(), "the questions are the same"
            expected = [COLORS[(place + steps) % len(COLORS)] for place in places]
            assert [own[f"what color at {thing.place}"] for thing in scene.things] == expected
        for one, other in combinations(asked, 2):
            assert all(one[words] != other[words] for words in one)


def test_the_grounds_of_contradicting_domains_do_not_overlap() -> None:
    greys = [
        {int(render(replace(scene, things=()), DOMAINS[name])[0, 0, 0]) for scene in drawn(2, 200)}
        for name in GROUNDS
    ]
    assert min(greys[0]) > max(greys[1]) > min(greys[1]) > max(greys[2])


def test_the_drift_starts_plain_and_moves_every_hue_to_the_next() -> None:
    steps = [DOMAINS[f"drift-{step}"] for step in range(1, DRIFT + 1)]
    assert steps[0].palette == RGB and steps[0].ground == PLAIN.ground
    assert steps[-1].palette == {
        color: RGB[later] for color, later in zip(HUES, (*HUES[1:], HUES[0]), strict=True)
    }
    assert [domain.ground[0] for domain in steps] == [0, -30, -60, -90, -120]
    for color in HUES:
        away = [sum(abs(a - b) for a, b in zip(d.palette[color], RGB[color], strict=True)) for d in steps]
        assert away == sorted(away) and len(set(away)) == DRIFT


@pytest.mark.parametrize("name", ["negative-looking", "dim-coloring"])
def test_majority_answers_are_low_and_kinds_balanced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "IMAGES", {"train": 1000, "test": 300})
    learned, scored = ([q for _, qs in asked_scenes(name, split) for q in qs] for split in ("train", "test"))
    assert majority_level(learned, scored) < 25
    kinds = Counter(q.kind for q in scored)
    assert list(kinds.values()) == [100, 100, 100]


@pytest.mark.parametrize("name", ["sketch", "negative", f"drift-{DRIFT}"])
def test_the_shipped_encoder_sees_every_attribute_in_a_domain(name: str, encoder: Any) -> None:
    probes = measure.probe_accuracies(encoder, seed=3, learned=1000, scored=200, domain=DOMAINS[name])
    assert probes["color"] > 95 and probes["letter"] > 88 and probes["shape"] > 65


@pytest.fixture(scope="module")
def encoder() -> Any:
    import open_clip

    folder = content.package_folder("registry") / "models" / "tiny" / "vision"
    return open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_task_of_a_hard_sequence_is_of_the_world(name: str) -> None:
    sequence = read_sequence(content.names("registry", NOWHERE)[name])
    asked = {stage.visit_of or stage.task for stage in sequence.stages} | set(sequence.transfer)
    for task in (find_task(one, NOWHERE) for one in asked):
        assert task.data is not None and task.data.path.removeprefix("world:") in data.DATASETS
        assert (task.modalities, task.prompt) == (("image",), "<image> Q {question} A:")


def test_questions_of_a_place_ask_for_what_is_there() -> None:
    (scene,) = drawn(3, 1)
    assert {q.kind for q in looking(scene)} == {"color-at", "shape-at", "letter-at"}
    assert len(list(looking(scene))) == 3 * len(scene.things)
