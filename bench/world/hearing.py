"""Questions about sounds with exact answers: melodies, spoken letters and digits, and pictures with a sound.

Time goes from left to right and pitch from bottom to top; the color of a note is its timbre.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moextend.bench.world.questions import Balance, Question, single, yes_or_no
from moextend.bench.world.scenes import Scene, Split, draw_scene
from moextend.bench.world.sound import Melody, Note, Sound, describe, draw_melody, play
from moextend.bench.world.speech import Utterance, draw_utterance, say, spell
from moextend.bench.world.words import COLORS, COLUMNS, LETTERS, NUMBERS, ROWS

LEFT, _, RIGHT = COLUMNS
MATCH, CAPTIONS = "match", "sounds"
HEARINGS = ("timbre", "melody", "spoken", MATCH, CAPTIONS)
"""Data sets of sounds."""


@dataclass(frozen=True)
class Heard:
    """What a question is about: a sound, alone or with the picture of a scene."""

    sound: Melody | Utterance
    scene: Scene | None = None

    def record(self) -> Sound:
        """The sound as samples."""
        return play(self.sound) if isinstance(self.sound, Melody) else say(self.sound)

    def content(self) -> str:
        """What can be heard and seen, as text."""
        picture = "" if self.scene is None else self.scene.content()
        voice = f"speaker {self.sound.speaker}: " if isinstance(self.sound, Utterance) else ""
        return f"{voice}{self.sound.content()} {picture}".strip()


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


def captions(sound: Melody | Utterance) -> Iterator[Question]:
    """One empty question with the full description as answer."""
    yield Question("caption", "", describe(sound) if isinstance(sound, Melody) else spell(sound))


def match(scene: Scene, sound: Melody | Utterance) -> Iterator[Question]:
    """Asks whether a sound fits a picture (its letter, timbre or number of notes), or where its letter stands."""
    if isinstance(sound, Utterance):
        sign = sound.signs[0]
        yield Question("same-letter", "same letter", yes_or_no(any(t.letter == sign for t in scene.things)))
        for thing in single(scene.things, "letter"):
            if thing.letter == sign:
                yield Question("place-of-letter", "where is the letter", thing.place)
        return
    yield Question("same-count", "same objects", yes_or_no(len(sound.notes) == len(scene.things)))
    if len(sound.notes) == 1:
        color = sound.notes[0].color
        yield Question("same-color", "same color", yes_or_no(any(t.color == color for t in scene.things)))


def draw_match(rng: random.Random, split: Split) -> tuple[Heard, list[Question]]:
    """A picture and a sound of the split with one question; the sound fits in half of the cases."""
    kind = rng.choice(("same-letter", "place-of-letter", "same-color", "same-count"))
    scene, fits = draw_scene(rng, split, most=3), rng.random() < 0.5
    sound: Melody | Utterance
    match kind:
        case "same-letter":
            sound = draw_utterance(
                rng, split, 1, 1, _fitting(LETTERS, [t.letter for t in scene.things], fits)
            )
        case "place-of-letter":
            letters = [thing.letter for thing in single(scene.things, "letter")]
            if not letters:
                return draw_match(rng, split)
            sound = draw_utterance(rng, split, 1, 1, letters)
        case "same-color":
            colors = _fitting(COLORS, [t.color for t in scene.things], fits)
            sound = draw_melody(rng, split, 1, 1, colors)
        case _:
            counts = [n for n in (1, 2, 3) if (n == len(scene.things)) == fits]
            count = rng.choice(counts)
            sound = draw_melody(rng, split, count, count)
    return Heard(sound, scene), [q for q in match(scene, sound) if q.kind == kind]


def _fitting(values: Sequence[str], shown: Sequence[str], fits: bool) -> list[str]:
    return [value for value in values if (value in shown) == fits]


def asked_sounds(
    task: str, rng: random.Random, split: Split, count: int, most: int
) -> Iterator[tuple[Heard, list[Question]]]:
    """`count` sounds of a split, each with up to `most` balanced questions."""
    balance = Balance(rng)
    for _ in range(count):
        if task == MATCH:
            yield draw_match(rng, split)
            continue
        sound: Melody | Utterance
        match task:
            case "timbre":
                sound = draw_melody(rng, split, 1, 3)
                asked = timbre(sound)
            case "melody":
                sound = draw_melody(rng, split, 1, 4)
                asked = melody(sound)
            case "spoken":
                sound = draw_utterance(rng, split, 1, 2)
                asked = spoken(sound)
            case _:
                sound = draw_melody(rng, split) if rng.random() < 0.5 else draw_utterance(rng, split)
                asked = captions(sound)
        yield Heard(sound), balance.choose(asked, most)
