"""Answers are computed again here, only from the caption and the words of the question."""

import random
from typing import NamedTuple

import pytest

from moextend.bench.world.questions import ASKERS, Balance, Question
from moextend.bench.world.scenes import any_scene, caption
from moextend.bench.world.words import vocabulary

KINDS = {
    "attributes": {"thing-at", "color-at", "shape-at", "color-of-shape", "shape-of-color", "color-of-letter"},
    "counting": {"count-all", "count-color", "count-shape", "count-row", "count-column"},
    "reading": {"letter-at", "letter-on-color", "letter-on-shape"},
    "position": {"place-of-color", "place-of-shape", "place-of-letter"},
    "comparison": {"same-color", "same-shape", "above", "bigger", "more"},
}


class Seen(NamedTuple):
    place: str
    size: str
    color: str
    shape: str
    letter: str


def seen(text: str) -> list[Seen]:
    return [Seen(*part.split()) for part in text.removesuffix(" .").split(" ; ")]


def matching(things: list[Seen], *output: str) -> list[Seen]:
    return [thing for thing in things if set(output) <= set(thing)]


def only(things: list[Seen], *output: str) -> Seen:
    (thing,) = matching(things, *output)
    return thing


def answer(things: list[Seen], words: list[str]) -> str:
    match words:
        case ["what" | "which", ("color" | "shape" | "letter") as asked, "at", place]:
            return str(getattr(only(things, place), asked))
        case ["what", "is", "at", place]:
            return f"{only(things, place).color} {only(things, place).shape}"
        case ["what", ("color" | "shape") as asked, "is", "the", value, *_]:
            return str(getattr(only(things, value), asked))
        case ["what", "color", "is", "letter", letter]:
            return only(things, letter).color
        case ["which", "letter", "on", "the", value, *_]:
            return only(things, value).letter
        case ["where", "is", "letter", value] | ["where", "is", "the", value, *_]:
            return only(things, value).place
        case ["how", "many", *what]:
            return ["zero", "one", "two", "three", "four"][len(counted(things, what))]
        case _:
            return compared(things, words)


def counted(things: list[Seen], what: list[str]) -> list[Seen]:
    match what:
        case ["objects"]:
            return things
        case ["objects", "in", line, _]:
            return [thing for thing in things if line in thing.place.split("-")]
        case [color, "objects"]:
            return matching(things, color)
        case [plural]:
            return matching(things, {"crosses": "cross"}.get(plural, plural.removesuffix("s")))
    raise AssertionError(what)


def compared(things: list[Seen], words: list[str]) -> str:
    rows = ["top", "middle", "bottom"]
    match words:
        case ["same", asked, one, "and", other]:
            values = {getattr(only(things, place), asked) for place in (one, other)}
            return "yes" if len(values) == 1 else "no"
        case ["is", one, "above", other]:
            heights = [rows.index(only(things, color).place.split("-")[0]) for color in (one, other)]
            return "yes" if heights[0] < heights[1] else "no"
        case ["which", "is", "bigger", one, "or", other]:
            assert {only(things, one).size, only(things, other).size} == {"small", "big"}
            return one if only(things, one).size == "big" else other
        case ["more", one, "or", other]:
            counts = [len(matching(things, one)), len(matching(things, other))]
            assert counts[0] != counts[1]
            return one if counts[0] > counts[1] else other
    raise AssertionError(words)


@pytest.mark.parametrize("task", ASKERS)
def test_every_answer_is_true(task: str) -> None:
    rng = random.Random(0)
    kinds = set()
    for _ in range(400):
        scene = any_scene(rng)
        for q in ASKERS[task](scene):
            assert q.answer == answer(seen(caption(scene)), q.words.split()), (caption(scene), q)
            kinds.add(q.kind)
    assert kinds == KINDS[task]


@pytest.mark.parametrize("task", ASKERS)
def test_every_question_has_one_answer_and_known_words(task: str) -> None:
    known = set(vocabulary())
    rng = random.Random(1)
    for _ in range(200):
        asked = list(ASKERS[task](any_scene(rng)))
        answers: dict[str, str] = {}
        for q in asked:
            assert answers.setdefault(q.words, q.answer) == q.answer
            assert set(f"Q {q.words} A: {q.answer}".split()) <= known


def test_balance_prefers_what_was_asked_least() -> None:
    balance = Balance(random.Random(0))
    pool = [Question("a", "x", "red"), Question("a", "y", "blue"), Question("b", "z", "red")]
    assert {q.kind for q in balance.choose(pool, 2)} == {"a", "b"}
    assert len(balance.choose(pool, 5)) == 3
