"""Answers about sounds are computed again here, only from the descriptions and the words of the question."""

import random
from collections import Counter
from typing import NamedTuple

import pytest

from moextend.bench.world import hearing
from moextend.bench.world.data import heard
from moextend.bench.world.hearing import HEARINGS, Heard
from moextend.bench.world.questions import Question, majority_level
from moextend.bench.world.recital import Performance, Recital, draw_recital, perform, tell
from moextend.bench.world.scenes import Scene, caption
from moextend.bench.world.sound import RATE, Melody, describe
from moextend.bench.world.speech import Utterance
from moextend.bench.world.words import NUMBERS, vocabulary

KINDS = {
    "timbre": {"color-at-left", "color-at-right", "color-in-row", "row-of-color"},
    "melody": {"count-all", "count-color", "count-row", "first", "place", "rises"},
    "spoken": {"letter", "letter-at-left", "letter-at-right", "word"},
    "match": {"same-letter", "place-of-letter", "color-of-letter", "same-color", "same-count"},
    "scenes": {"color-at", "letter-at", "count-color"},
    "sounds": {"caption"},
}
HIGHEST_MAJORITY = {"timbre": 25, "melody": 35, "spoken": 8, "match": 25, "scenes": 25, "sounds": 5}


class Tone(NamedTuple):
    row: str
    size: str
    color: str


def tones(melody: Melody) -> list[Tone]:
    return [Tone(*part.split()) for part in describe(melody).removesuffix(" .").split(" ; ")]


def only(notes: list[Tone], word: str) -> Tone:
    (note,) = (note for note in notes if word in note)
    return note


def of_melody(notes: list[Tone], words: list[str]) -> str:
    match words:
        case ["what", "color", "at", "left"]:
            return notes[0].color
        case ["what", "color", "at", "right"]:
            return notes[-1].color
        case ["what", "color", "in", row, "row"]:
            return only(notes, row).color
        case ["which", "row", "is", color]:
            return only(notes, color).row
        case ["how", "many", "objects"]:
            return NUMBERS[len(notes)]
        case ["how", "many", "objects", "in", word, "row"] | ["how", "many", word, "objects"]:
            return NUMBERS[sum(word in note for note in notes)]
        case ["where", "is", "the", color, "object"]:
            assert len(notes) == 3
            return ("left", "center", "right")[notes.index(only(notes, color))]
        case ["is", "right", "above", "left"]:
            order = ("bottom", "middle", "top")
            first, last = order.index(notes[0].row), order.index(notes[-1].row)
            assert first != last
            return "yes" if last > first else "no"
    raise AssertionError(words)


def of_signs(signs: tuple[str, ...], words: list[str]) -> str:
    match words:
        case ["which", "letter"]:
            (sign,) = signs
            return sign
        case ["which", "letter", "at", place]:
            return signs[{"left": 0, "right": -1}[place]]
        case ["copy"]:
            return " ".join(signs)
    raise AssertionError(words)


def of_pair(scene: Scene, sound: Performance, words: list[str]) -> str:
    things = [part.split() for part in caption(scene).removesuffix(" .").split(" ; ")]
    places, _, colors, _, letters = zip(*things, strict=True)
    match words, sound:
        case ["same", "letter"], Utterance((letter,)):
            (seen,) = letters
            return f"{seen} {letter} {'yes' if seen == letter else 'no'}"
        case ["where", "is", "the", "letter"], Utterance((letter,)):
            assert letters.count(letter) == 1
            return str(places[letters.index(letter)])
        case ["what", "color", "is", "the", "letter"], Utterance((letter,)):
            assert letters.count(letter) == 1
            return str(colors[letters.index(letter)])
        case ["same", "color"], Melody((note,)):
            (seen,) = colors
            return f"{seen} {note.color} {'yes' if seen == note.color else 'no'}"
        case ["same", "objects"], Melody(notes):
            return "yes" if len(notes) == len(things) else "no"
    raise AssertionError(words)


def of_recital(text: str, words: list[str]) -> str:
    things = [part.split() for part in text.removesuffix(" .").split(" ; ")]
    match words:
        case ["how", "many", color, "objects"]:
            return NUMBERS[sum(color in thing for thing in things)]
        case ["what", "color", "at", place] | ["which", "letter", "at", place]:
            ((_, _, color, letter),) = (thing for thing in things if place in thing)
            return color if words[1] == "color" else letter
    raise AssertionError(words)


def answer(one: Heard, q: Question) -> str:
    words = q.words.split()
    match one.sound:
        case Recital():
            return of_recital(tell(one.sound), words) if words else tell(one.sound)
        case Melody():
            found = tones(one.sound)
            if not words:
                return " ; ".join(" ".join(tone) for tone in found) + " ."
            return of_pair(one.scene, one.sound, words) if one.scene else of_melody(found, words)
        case Utterance(signs):
            if not words:
                return " ; ".join(f"letter {sign}" for sign in signs) + " ."
            return of_pair(one.scene, one.sound, words) if one.scene else of_signs(signs, words)


def drawn(task: str, count: int) -> list[tuple[Heard, Question]]:
    rng = random.Random(0)
    sounds = hearing.asked_sounds(task, rng, "train", count, 9)
    return [(one, q) for one, questions in sounds for q in questions]


@pytest.mark.parametrize("task", HEARINGS)
def test_every_answer_is_true_and_in_known_words(task: str) -> None:
    known, kinds = set(vocabulary()), set()
    for one, q in drawn(task, 400):
        assert q.answer == answer(one, q), (tell(one.sound), q)
        assert set(f"Q {q.words} A: {q.answer}".split()) <= known
        kinds.add(q.kind)
    assert kinds == KINDS[task]


@pytest.mark.parametrize("task", HEARINGS)
def test_no_question_has_two_answers(task: str) -> None:
    for one, questions in hearing.asked_sounds(task, random.Random(1), "train", 200, 9):
        assert len({q.words for q in questions}) == len(questions) > 0, tell(one.sound)


@pytest.mark.parametrize("task", HEARINGS)
def test_majority_level_is_low(task: str) -> None:
    learned, scored = ([q for _, qs in heard(task, split) for q in qs] for split in ("train", "test"))
    assert majority_level(learned, scored) < HIGHEST_MAJORITY[task]
    assert set(Counter(q.kind for q in scored)) == KINDS[task]


def test_yes_and_no_are_balanced_in_pairs() -> None:
    asked = [q for _, qs in heard("match", "train") for q in qs]
    for kind in ("same-letter", "same-color", "same-count"):
        of_kind = [q.answer.split()[-1] == "yes" for q in asked if q.kind == kind]
        assert 0.46 < sum(of_kind) / len(of_kind) < 0.54


@pytest.mark.parametrize("task", HEARINGS)
def test_train_and_test_share_no_performer_no_picture_and_no_content(task: str) -> None:
    """A single note or sign is in both, by other performers."""
    train, test = ([one for one, _ in heard(task, split)] for split in ("train", "test"))
    for parts in (performers, pictures, contents):
        assert not parts(train) & parts(test)


def performers(sounds: list[Heard]) -> set[int]:
    found = set()
    for one in sounds:
        match one.sound:
            case Melody(_, performer) | Utterance(_, performer) | Recital(_, performer):
                found.add(performer)
    return found


def pictures(sounds: list[Heard]) -> set[str]:
    return {one.scene.content() for one in sounds if one.scene}


def contents(sounds: list[Heard]) -> set[str]:
    single = {Melody: "notes", Utterance: "signs", Recital: "things"}
    return {one.sound.content() for one in sounds if len(getattr(one.sound, single[type(one.sound)])) > 1}


def test_a_scene_is_described_drawn_and_recited_alike() -> None:
    for one, questions in hearing.asked_sounds("scenes", random.Random(2), "train", 50, 3):
        assert isinstance(one.sound, Recital) and one.scene == one.sound.scene
        assert len(questions) == 3
        shown = [set(part.split()) for part in caption(one.scene).removesuffix(" .").split(" ; ")]
        heard_parts = [set(part.split()) for part in tell(one.sound).removesuffix(" .").split(" ; ")]
        assert all(any(part <= thing for thing in shown) for part in heard_parts)


def test_a_recital_plays_and_says_its_things_from_left_to_right() -> None:
    recital = draw_recital(random.Random(3), "test")
    samples, spans = perform(recital)
    assert [thing.column for thing in recital.things] == [0, 1, 2]
    assert len(spans) == 6 and spans[-1][1] < len(samples) / RATE < 3.5
