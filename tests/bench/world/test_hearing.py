"""Answers about sounds are computed again here, only from the descriptions and the words of the question."""

import random
from typing import NamedTuple

import pytest

from moextend.bench.world import data, hearing
from moextend.bench.world.hearing import HEARINGS, Heard, Performance, Recital, tell
from moextend.bench.world.questions import Question
from moextend.bench.world.scenes import Scene, caption
from moextend.bench.world.sound import Melody, describe
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
    for one, q in drawn(task, 200):
        assert q.answer == answer(one, q), (tell(one.sound), q)
        assert set(f"Q {q.words} A: {q.answer}".split()) <= known
        kinds.add(q.kind)
    assert kinds == KINDS[task]


def test_train_and_test_share_no_performer_and_no_content_of_several_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SOUNDS", "MATCHED", "RECITED"):
        monkeypatch.setattr(data, name, {"train": 200, "test": 100})
    for task in HEARINGS:
        train, test = ([one.sound for one, _ in data.heard(task, split)] for split in ("train", "test"))
        for find in (performer, content):
            assert not ({find(one) for one in train} & {find(one) for one in test}) - {None}


def performer(sound: Performance) -> int:
    match sound:
        case Melody(_, number) | Utterance(_, number) | Recital(_, number):
            return number


def content(sound: Performance) -> str | None:
    """A single note or sign is in both, by other performers."""
    return sound.content() if " ; " in tell(sound) else None
