"""Questions about a scene with exact answers: all possible ones, and a balanced selection."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, permutations

from moextend.bench.world.scenes import Scene, Thing
from moextend.bench.world.words import COLORS, COLUMNS, NUMBERS, PLURALS, ROWS, YES_NO


@dataclass(frozen=True)
class Question:
    """A question and its answer; both are words separated by spaces."""

    kind: str
    words: str
    answer: str


Asker = Callable[[Scene], Iterator[Question]]


def single(things: Iterable[Thing], attribute: str) -> Iterator[Thing]:
    """Things with a color, shape, size or letter that no other thing has."""
    things = tuple(things)
    seen = Counter(getattr(thing, attribute) for thing in things)
    return (thing for thing in things if seen[getattr(thing, attribute)] == 1)


def attributes(scene: Scene) -> Iterator[Question]:
    """Asks for the color or shape (or both) of the thing at a place, of a color or shape, or with a letter."""
    for t in scene.things:
        yield Question("thing-at", f"what is at {t.place}", f"{t.color} {t.shape}")
        yield Question("color-at", f"what color at {t.place}", t.color)
        yield Question("shape-at", f"what shape at {t.place}", t.shape)
    for t in single(scene.things, "shape"):
        yield Question("color-of-shape", f"what color is the {t.shape}", t.color)
    for t in single(scene.things, "color"):
        yield Question("shape-of-color", f"what shape is the {t.color} object", t.shape)
    for t in single(scene.things, "letter"):
        yield Question("color-of-letter", f"what color is letter {t.letter}", t.color)


def counting(scene: Scene) -> Iterator[Question]:
    """Asks for the number of things: all, of a color, of a shape, in a row, in a column."""
    things = scene.things
    yield Question("count-all", "how many objects", NUMBERS[len(things)])
    for color in COLORS:
        count = sum(t.color == color for t in things)
        yield Question("count-color", f"how many {color} objects", NUMBERS[count])
    for shape, plural in PLURALS.items():
        count = sum(t.shape == shape for t in things)
        yield Question("count-shape", f"how many {plural}", NUMBERS[count])
    for i, row in enumerate(ROWS):
        count = sum(t.row == i for t in things)
        yield Question("count-row", f"how many objects in {row} row", NUMBERS[count])
    for i, column in enumerate(COLUMNS):
        count = sum(t.column == i for t in things)
        yield Question("count-column", f"how many objects in {column} column", NUMBERS[count])


def reading(scene: Scene) -> Iterator[Question]:
    """Asks for the letter at a place, on a color or on a shape."""
    for t in scene.things:
        yield Question("letter-at", f"which letter at {t.place}", t.letter)
    for t in single(scene.things, "color"):
        yield Question("letter-on-color", f"which letter on the {t.color} object", t.letter)
    for t in single(scene.things, "shape"):
        yield Question("letter-on-shape", f"which letter on the {t.shape}", t.letter)


def position(scene: Scene) -> Iterator[Question]:
    """Asks for the place of the thing with a color, shape or letter."""
    for t in single(scene.things, "color"):
        yield Question("place-of-color", f"where is the {t.color} object", t.place)
    for t in single(scene.things, "shape"):
        yield Question("place-of-shape", f"where is the {t.shape}", t.place)
    for t in single(scene.things, "letter"):
        yield Question("place-of-letter", f"where is letter {t.letter}", t.place)


def comparison(scene: Scene) -> Iterator[Question]:
    """Compares two things or two sets of things: above, same color, same shape, bigger, more."""
    for a, b in permutations(scene.things, 2):
        yield Question("same-color", f"same color {a.place} and {b.place}", yes_or_no(a.color == b.color))
        yield Question("same-shape", f"same shape {a.place} and {b.place}", yes_or_no(a.shape == b.shape))
    for a, b in permutations(single(scene.things, "color"), 2):
        if a.row != b.row:
            yield Question("above", f"is {a.color} above {b.color}", yes_or_no(a.row < b.row))
        if a.size != b.size:
            bigger = a if a.size == "big" else b
            yield Question("bigger", f"which is bigger {a.color} or {b.color}", bigger.color)
    seen = Counter(t.color for t in scene.things)
    for one, other in combinations(sorted(seen), 2):
        if seen[one] != seen[other]:
            most = max(one, other, key=lambda color: seen[color])
            yield Question("more", f"more {one} or {other}", most)
            yield Question("more", f"more {other} or {one}", most)


def yes_or_no(truth: bool) -> str:
    """The word for a truth value."""
    return YES_NO[0] if truth else YES_NO[1]


ASKERS: dict[str, Asker] = {
    "attributes": attributes,
    "counting": counting,
    "reading": reading,
    "position": position,
    "comparison": comparison,
}
"""Image task -> function that returns all its questions about a scene."""


@dataclass
class Balance:
    """Selects questions so that kinds, and answers within a kind, are about equally frequent."""

    rng: random.Random
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)

    def choose(self, asked: Iterable[Question], count: int) -> list[Question]:
        """At most `count` different questions of `asked`; the least used kinds and answers come first."""
        left = list(dict.fromkeys(asked))
        chosen: list[Question] = []
        while left and len(chosen) < count:
            self.rng.shuffle(left)
            kind = min((q.kind for q in left), key=self.kinds.__getitem__)
            of_kind = [q for q in left if q.kind == kind]
            best = min(of_kind, key=lambda q: self.answers[q.kind, q.answer])
            self.kinds[kind] += 1
            self.answers[best.kind, best.answer] += 1
            left.remove(best)
            chosen.append(best)
        return chosen
