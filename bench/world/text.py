"""The text world: agreement, facts, arithmetic, copying, and questions about described scenes.

A piece of text is a list of words, each with the weight of its prediction in the loss of pre-training: what
nothing predicts (a name, a list to be copied) weighs little, what shows a skill (a verb, an answer) much.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from moextend.bench.world import questions, words
from moextend.bench.world.questions import Balance, Question
from moextend.bench.world.scenes import Scene, Split, caption, draw_scene, hashed

FACT_SEED = 7
SCENE_LINES, MAP_LINES = 0.5, 0.25
"""Shares of the lines; the other ones are short pieces in a row."""
LINE_WORDS = 40
"""Short pieces are joined to lines of at least so many words, so that no compute goes into padding."""


class Word(NamedTuple):
    """A word and the weight of its prediction."""

    text: str
    weight: float = 1.0


Piece = list[Word]


class Agreement(NamedTuple):
    """A subject, perhaps with an attractor; the verb in the subject's number and in the other one."""

    subject: str
    verb: str
    wrong: str


class Fact(NamedTuple):
    """One of the 72 facts: "anna lives in" + "oslo"; `others` are the wrong answers of the relation."""

    stem: str
    answer: str
    others: tuple[str, ...]


class Copying(NamedTuple):
    """Words that are repeated."""

    listed: tuple[str, ...]


def facts() -> list[Fact]:
    """All facts of the world: the city, job and pet of everybody."""
    rng = random.Random(FACT_SEED)
    pools = {"city": words.CITIES, "job": words.JOBS, "pet": words.PETS}
    found = []
    for name in words.NAMES:
        for relation, pool in pools.items():
            answer = rng.choice(pool)
            stem = " ".join((name, *words.RELATIONS[relation]))
            found.append(Fact(stem, answer, tuple(other for other in pool if other != answer)))
    return found


FACTS = tuple(facts())


def text_split(text: str) -> Split:
    """The split that a sentence belongs to, by hash: one in five is held out."""
    return "test" if hashed(text) % 5 == 0 else "train"


def agreement(rng: random.Random, split: Split) -> Agreement:
    """A sentence of the split: "the old boys near the king" with "run" and "runs"."""
    while True:
        number = rng.randrange(2)
        adjective = f"{rng.choice(words.ADJECTIVES)} " if rng.random() < 0.5 else ""
        subject = f"the {adjective}{rng.choice(words.NOUNS)[number]}"
        if rng.random() < 0.6:
            subject += f" {rng.choice(words.PREPOSITIONS)} the {rng.choice(words.NOUNS)[rng.randrange(2)]}"
        verb = rng.choice(words.VERBS)
        if text_split(f"{subject} {verb[number]}") == split:
            return Agreement(subject, verb[number], verb[1 - number])


def copying(
    rng: random.Random, split: Split, pool: tuple[str, ...], least: int = 3, most: int = 5
) -> Copying:
    """A list of the split; words may come twice."""
    while True:
        listed = tuple(rng.choice(pool) for _ in range(rng.randint(least, most)))
        if text_split(" ".join(listed)) == split:
            return Copying(listed)


def text_questions(scene: Scene) -> Iterator[Question]:
    """What is asked about a described scene: a part of the kinds of the image tasks, in the same words."""
    kinds = ("color-at", "shape-at", "letter-at", "count-all", "count-color")
    askers = (questions.attributes, questions.reading, questions.counting)
    return (q for q in chain.from_iterable(asker(scene) for asker in askers) if q.kind in kinds)


def say(text: str, weight: float = 1.0) -> Piece:
    """The words of a text, all of one weight."""
    return [Word(word, weight) for word in text.split()]


def agreement_piece(rng: random.Random) -> Piece:
    """A sentence of training, its verb weighted."""
    sentence = agreement(rng, "train")
    return [*say(sentence.subject, 0.5), Word(sentence.verb, 4.0), Word(".")]


def fact_piece(rng: random.Random) -> Piece:
    """A fact, its answer weighted."""
    fact = rng.choice(FACTS)
    return [*say(fact.stem, 0.5), Word(fact.answer, 2.0), Word(".")]


def arithmetic_piece(rng: random.Random) -> Piece:
    """A sum of two digits."""
    a, b = rng.randrange(10), rng.randrange(10)
    return [*say(f"{a} plus {b} equals", 0.5), Word(str(a + b), 2.0), Word(".")]


def copying_piece(rng: random.Random) -> Piece:
    """A list and its repetition, from all words of the world: every word is learned as input and as output."""
    listed = " ".join(copying(rng, "train", COPIED).listed)
    return [Word("copy"), *say(listed, 0.1), Word("to"), *say(listed), Word(".")]


COPIED = tuple(word for word in words.vocabulary() if word not in (*words.SPECIAL, "copy", "to", "."))
PIECES = (
    *(fact_piece, fact_piece, agreement_piece, agreement_piece, arithmetic_piece),
    *(copying_piece, copying_piece),
)


def scene_line(rng: random.Random, balance: Balance) -> Piece:
    """A described scene of training and questions about it: "caption Q ... A: answer <eos> Q ..."."""
    scene = draw_scene(rng, "train")
    return say(caption(scene), 0.05) + turns(balance.choose(text_questions(scene), 4))


def draw_map(scene: Scene, rng: random.Random) -> dict[int, str]:
    """One attribute, "color" or another, for every cell that holds a thing: what a map tells about it."""
    return {thing.cell: rng.choice(("color", "shape", "size", "letter")) for thing in scene.things}


def map_words(scene: Scene, attributes: dict[int, str]) -> str:
    """The map: nine words, one a cell, row by row; "none" where the cell is empty."""
    shown = {thing.cell: str(getattr(thing, attributes[thing.cell])) for thing in scene.things}
    return " ".join(shown.get(cell, words.EMPTY) for cell in range(len(words.CELLS)))


def map_questions(scene: Scene, attributes: dict[int, str]) -> Iterator[Question]:
    """Questions that a map alone can answer: the attribute at a place, and the number of things."""
    asked = {(f"{attributes[thing.cell]}-at", thing.place) for thing in scene.things}
    for q in text_questions(scene):
        if q.kind == "count-all" or (q.kind, q.words.partition(" at ")[2]) in asked:
            yield q


def turns(asked: list[Question]) -> Piece:
    """Questions with their answers: "Q ... A: answer <eos> Q ...", the answers weighted."""
    line: Piece = []
    for q in asked:
        line += [*say(f"Q {q.words} A:", 0.1), *say(q.answer, 5.0), Word(words.EOS, 0.3)]
    return line


def map_line(rng: random.Random, balance: Balance) -> Piece:
    """A map of a training scene, then what it answers, or the whole caption, of which it tells a part.

    A map stands where the nine tokens of an image will stand: it teaches which position is which place.
    """
    scene = draw_scene(rng, "train")
    attributes = draw_map(scene, rng)
    line = say(map_words(scene, attributes), 0.1)
    if rng.random() < 0.5:
        return line + turns(balance.choose(map_questions(scene, attributes), 4))
    for thing in scene.things:
        line += say(thing.place, 2.0)
        for attribute in ("size", "color", "shape", "letter"):
            line += say(getattr(thing, attribute), 3.0 if attribute == attributes[thing.cell] else 0.1)
        line.append(Word("." if thing is scene.things[-1] else ";"))
    return [*line, Word(words.EOS)]


def short_line(rng: random.Random) -> Piece:
    """Several short pieces in a row."""
    line: Piece = []
    while len(line) < LINE_WORDS:
        line += rng.choice(PIECES)(rng)
    return [*line, Word(words.EOS)]


def training_line(rng: random.Random, balance: Balance) -> Piece:
    """One line of pre-training: a described scene, a map, or short pieces."""
    kind = rng.random()
    if kind < SCENE_LINES:
        return scene_line(rng, balance)
    if kind < SCENE_LINES + MAP_LINES:
        return map_line(rng, balance)
    return short_line(rng)
