"""Questions about sounds with exact answers: melodies, spoken letters and digits, and pictures with a sound.

Time goes from left to right and pitch from bottom to top; the color of a note is its timbre.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from moextend.bench.world.questions import Balance, Question, attributes, counting, reading, single, yes_or_no
from moextend.bench.world.scenes import GRID, Scene, Split, Thing, draw_scene
from moextend.bench.world.sound import (
    PERFORMERS,
    Melody,
    Note,
    Sound,
    draw_melody,
    played,
    recorded,
    split_of,
    style_of,
)
from moextend.bench.world.speech import Utterance, draw_utterance, pronounced, voice_of
from moextend.bench.world.words import COLORS, COLUMNS, LETTERS, NUMBERS, ROWS


@dataclass(frozen=True)
class Recital:
    """A scene, recited once by one performer, who plays and speaks."""

    scene: Scene
    performer: int = 0
    take: int = 0
    """Seed of pauses, loudness, intonation and background noise."""

    @property
    def things(self) -> tuple[Thing, ...]:
        """Things from left to right."""
        return tuple(sorted(self.scene.things, key=lambda thing: thing.column))

    def described(self) -> str:
        """What can be heard, as text."""
        return " ; ".join(f"{t.place} {t.size} {t.color} {t.letter}" for t in self.things) + " ."

    def split(self) -> Split | None:
        """Split of the scene; None for a performer of the other split."""
        split = self.scene.split()
        return split if split_of(self.performer, "", 1) == split else None

    def performed(self) -> Sound:
        """The sound, about 2 s."""
        rng = np.random.default_rng(self.take)
        style, voice = style_of(self.performer), voice_of(self.performer)
        parts = []
        for thing in self.things:
            note = Note(thing.color, ROWS[thing.row], thing.size)
            parts += [played(note, style, rng), pronounced(thing.letter, voice, rng)]
        return recorded(parts, (0.05, 0.08), rng)


Performance = Melody | Utterance | Recital


def draw_recital(rng: random.Random, split: Split) -> Recital:
    """A recital of the split."""
    while True:
        scene = draw_scene(rng, split, least=GRID, most=GRID)
        found = Recital(scene, rng.randrange(PERFORMERS), rng.getrandbits(32))
        if len({thing.column for thing in scene.things}) == GRID and found.split() == split:
            return found


LEFT, _, RIGHT = COLUMNS
MATCH, SCENES, CAPTIONS = "match", "scenes", "sounds"
HEARINGS = ("timbre", "melody", "spoken", MATCH, SCENES, CAPTIONS)
"""Data sets of sounds."""


@dataclass(frozen=True)
class Heard:
    """What a question is about: a sound, alone or with the picture of a scene."""

    sound: Performance
    scene: Scene | None = None


def timbre(melody: Melody) -> Iterator[Question]:
    """Asks for the timbre or register of the first or last note, or of the only one of a register or timbre."""
    first, last = melody.notes[0], melody.notes[-1]
    yield Question("color-at-left", f"what color at {LEFT}", first.color)
    yield Question("color-at-right", f"what color at {RIGHT}", last.color)
    for row in ROWS:
        inside = [note for note in melody.notes if note.row == row]
        if len(inside) == 1:
            yield Question("color-in-row", f"what color in {row} row", inside[0].color)
    for note in singles(melody):
        yield Question("row-of-color", f"which row is {note.color}", note.row)


def melody(heard: Melody) -> Iterator[Question]:
    """Asks for the number of notes (all, of a timbre, of a register), for their order, and whether the tune rises."""
    notes = heard.notes
    yield Question("count-all", "how many objects", NUMBERS[len(notes)])
    for color in COLORS:
        count = sum(note.color == color for note in notes)
        yield Question("count-color", f"how many {color} objects", NUMBERS[count])
    for row in ROWS:
        count = sum(note.row == row for note in notes)
        yield Question("count-row", f"how many objects in {row} row", NUMBERS[count])
    yield Question("first", f"what color at {LEFT}", notes[0].color)
    if len(notes) == 3:
        for note, place in zip(notes, COLUMNS, strict=True):
            if note in singles(heard):
                yield Question("place", f"where is the {note.color} object", place)
    heights = [ROWS.index(note.row) for note in notes]
    if heights[0] != heights[-1]:
        yield Question("rises", f"is {RIGHT} above {LEFT}", yes_or_no(heights[-1] < heights[0]))


def singles(melody: Melody) -> list[Note]:
    """Notes with a timbre that no other note has."""
    seen = Counter(note.color for note in melody.notes)
    return [note for note in melody.notes if seen[note.color] == 1]


def spoken(utterance: Utterance) -> Iterator[Question]:
    """Asks for the only, first or last sign, or for all of them."""
    signs = utterance.signs
    if len(signs) == 1:
        yield Question("letter", "which letter", signs[0])
        return
    yield Question("letter-at-left", f"which letter at {LEFT}", signs[0])
    yield Question("letter-at-right", f"which letter at {RIGHT}", signs[-1])
    yield Question("word", "copy", " ".join(signs))


def recited(recital: Recital) -> Iterator[Question]:
    """Questions about a scene that its description, its picture and its recital answer: colors and letters."""
    kinds = ("color-at", "letter-at", "count-color")
    asked = chain.from_iterable(asker(recital.scene) for asker in (attributes, reading, counting))
    return (q for q in asked if q.kind in kinds)


def match(scene: Scene, sound: Melody | Utterance) -> Iterator[Question]:
    """Asks whether a sound fits a picture (letter, timbre, number of notes), or for the thing with its letter.

    Of a letter and a color, the answer says what is seen, what is heard, and whether they are the same.
    """
    things = scene.things
    if isinstance(sound, Utterance):
        (sign,) = sound.signs
        if len(things) == 1:
            seen = things[0].letter
            yield Question("same-letter", "same letter", f"{seen} {sign} {yes_or_no(seen == sign)}")
        for thing in single(things, "letter"):
            if thing.letter == sign:
                yield Question("place-of-letter", "where is the letter", thing.place)
                yield Question("color-of-letter", "what color is the letter", thing.color)
        return
    yield Question("same-count", "same objects", yes_or_no(len(sound.notes) == len(things)))
    if len(things) == len(sound.notes) == 1:
        seen, heard = things[0].color, sound.notes[0].color
        yield Question("same-color", "same color", f"{seen} {heard} {yes_or_no(seen == heard)}")


PAIRED = ("same-letter", "same-color", "same-count", "place-of-letter", "color-of-letter")
"""Kinds of questions about a picture with a sound."""


def draw_match(rng: random.Random, split: Split) -> tuple[Heard, list[Question]]:
    """A picture and a sound of the split with questions; the sound fits in half of the cases where the first asks that.

    A letter or a timbre is compared with a picture of one thing. What is asked for the thing with a letter may follow.
    """
    kind, fits = rng.choice(PAIRED), rng.random() < 0.5
    scene = draw_scene(rng, split, most=1 if kind in ("same-letter", "same-color") else 3)
    sound: Melody | Utterance
    match kind:
        case "same-letter":
            sound = draw_utterance(rng, split, 1, 1, _fitting(LETTERS, scene.things[0].letter, fits))
        case "same-color":
            sound = draw_melody(rng, split, 1, 1, _fitting(COLORS, scene.things[0].color, fits))
        case "same-count":
            count = rng.choice([n for n in (1, 2, 3) if (n == len(scene.things)) == fits])
            sound = draw_melody(rng, split, count, count)
        case _:
            letters = [thing.letter for thing in single(scene.things, "letter")]
            if not letters:
                return draw_match(rng, split)
            sound = draw_utterance(rng, split, 1, 1, letters)
    asked = list(match(scene, sound))
    first = [q for q in asked if q.kind == kind]
    return Heard(sound, scene), first + [q for q in asked if q.kind in PAIRED[3:] and q.kind != kind]


def _fitting(values: Sequence[str], shown: str, fits: bool) -> Sequence[str]:
    return [shown] if fits else [value for value in values if value != shown]


def asked_sounds(
    task: str, rng: random.Random, split: Split, count: int, most: int
) -> Iterator[tuple[Heard, list[Question]]]:
    """`count` sounds of a split, each with up to `most` balanced questions."""
    balance = Balance(rng)
    for _ in range(count):
        if task == MATCH:
            pair, questions = draw_match(rng, split)
            yield pair, questions[:most]
        elif task == SCENES:
            recital = draw_recital(rng, split)
            yield Heard(recital, recital.scene), balance.choose(recited(recital), most)
        else:
            sound, asked = _draw(task, rng, split)
            yield Heard(sound), balance.choose(asked, most)


def _draw(task: str, rng: random.Random, split: Split) -> tuple[Performance, Iterator[Question]]:
    match task:
        case "timbre":
            tune = draw_melody(rng, split, 1, 3)
            return tune, timbre(tune)
        case "melody":
            tune = draw_melody(rng, split, 1, 4)
            return tune, melody(tune)
        case "spoken":
            utterance = draw_utterance(rng, split, 1, 2)
            return utterance, spoken(utterance)
    sound: Performance = rng.choice((draw_melody, draw_utterance, draw_recital))(rng, split)
    return sound, iter([Question("caption", "", sound.described())])
