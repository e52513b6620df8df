"""The text world: agreement, facts, arithmetic, copying, and questions about described scenes.

A text is a list of words, each with its weight in the pre-training loss. Words that cannot be predicted (a name, a
list to be copied) have a low weight, words that need a skill (a verb, an answer) a high one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple, TypedDict

from moextend.bench.world import questions, words
from moextend.bench.world.questions import Balance, Question
from moextend.bench.world.scenes import WORLD_VERSION, Scene, Split, caption, draw_scene, hashed

FACT_SEED = 7
SCENE_LINES, MAP_LINES = 0.5, 0.25
"""Shares of the lines; the other lines consist of short pieces."""
LINE_WORDS = 40
"""Minimum number of words in a line; short pieces are joined to avoid padding."""


class Word(NamedTuple):
    """A word and its weight in the loss."""

    text: str
    weight: float = 1.0


Piece = list[Word]


class Agreement(NamedTuple):
    """A subject, perhaps with an attractor, and the verb in the right and in the wrong number."""

    subject: str
    verb: str
    wrong: str


class Fact(NamedTuple):
    """One of the 72 facts: "anna lives in" + "oslo"; `others` are the wrong answers of the relation."""

    stem: str
    answer: str
    others: tuple[str, ...]


def facts() -> list[Fact]:
    """All facts of the world: city, job and pet of every person."""
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
    """Split of a sentence, by its hash: one in five is held out."""
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
) -> tuple[str, ...]:
    """A list of the split; words may occur twice."""
    while True:
        listed = tuple(rng.choice(pool) for _ in range(rng.randint(least, most)))
        if text_split(" ".join(listed)) == split:
            return listed


def text_questions(scene: Scene) -> Iterator[Question]:
    """Questions about a described scene: some kinds of the image tasks, in the same words."""
    kinds = ("color-at", "shape-at", "letter-at", "count-all", "count-color")
    askers = (questions.attributes, questions.reading, questions.counting)
    return (q for q in chain.from_iterable(asker(scene) for asker in askers) if q.kind in kinds)


def say(text: str, weight: float = 1.0) -> Piece:
    """Words of a text, all with the same weight."""
    return [Word(word, weight) for word in text.split()]


def agreement_piece(rng: random.Random) -> Piece:
    """A training sentence with a higher weight on its verb."""
    sentence = agreement(rng, "train")
    return [*say(sentence.subject, 0.5), Word(sentence.verb, 4.0), Word(".")]


def fact_piece(rng: random.Random) -> Piece:
    """A fact with a higher weight on its answer."""
    fact = rng.choice(FACTS)
    return [*say(fact.stem, 0.5), Word(fact.answer, 2.0), Word(".")]


def arithmetic_piece(rng: random.Random) -> Piece:
    """A sum of two digits."""
    a, b = rng.randrange(10), rng.randrange(10)
    return [*say(f"{a} plus {b} equals", 0.5), Word(str(a + b), 2.0), Word(".")]


def copying_piece(rng: random.Random) -> Piece:
    """A list of any words of the world and its repetition, so that every word is learned as input and as output."""
    listed = " ".join(copying(rng, "train", COPIED))
    return [Word("copy"), *say(listed, 0.1), Word("to"), *say(listed), Word(".")]


COPIED = tuple(word for word in words.vocabulary() if word not in (*words.SPECIAL, "copy", "to", "."))
PIECES = (
    *(fact_piece, fact_piece, agreement_piece, agreement_piece, arithmetic_piece),
    *(copying_piece, copying_piece),
)


def scene_line(rng: random.Random, balance: Balance) -> Piece:
    """A described training scene and questions about it: "caption Q ... A: answer <eos> Q ..."."""
    scene = draw_scene(rng, "train")
    return say(caption(scene), 0.05) + turns(balance.choose(text_questions(scene), 4))


def draw_map(scene: Scene, rng: random.Random) -> dict[int, str]:
    """Cell -> one attribute ("color" or another) of its thing, as shown in a map."""
    return {thing.cell: rng.choice(("color", "shape", "size", "letter")) for thing in scene.things}


def map_words(scene: Scene, attributes: dict[int, str]) -> str:
    """The map: nine words, one per cell, row by row; "none" for an empty cell."""
    shown = {thing.cell: str(getattr(thing, attributes[thing.cell])) for thing in scene.things}
    return " ".join(shown.get(cell, words.EMPTY) for cell in range(len(words.CELLS)))


def map_questions(scene: Scene, attributes: dict[int, str]) -> Iterator[Question]:
    """Questions that a map can answer: the attribute at a place, and the number of things."""
    asked = {(f"{attributes[thing.cell]}-at", thing.place) for thing in scene.things}
    for q in text_questions(scene):
        if q.kind == "count-all" or (q.kind, q.words.partition(" at ")[2]) in asked:
            yield q


def turns(asked: list[Question]) -> Piece:
    """Questions with their answers: "Q ... A: answer <eos> Q ...", with a higher weight on the answers."""
    line: Piece = []
    for q in asked:
        line += [*say(f"Q {q.words} A:", 0.1), *say(q.answer, 5.0), Word(words.EOS, 0.3)]
    return line


def map_line(rng: random.Random, balance: Balance) -> Piece:
    """A map of a training scene, then questions about it or the full caption.

    The words of a map have the positions of the nine image tokens: the model learns which position is which place.
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
    """A line of several short pieces."""
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


ITEMS = 250
POOLS = (words.COLORS, words.SHAPES, words.LETTERS, words.NUMBERS)


class Item(TypedDict):
    """One item: the right choice follows the context."""

    context: str
    choices: list[str]
    gold: int


def _item(rng: random.Random, context: str, answer: str, wrong: list[str]) -> Item:
    choices = [answer, *wrong]
    rng.shuffle(choices)
    return {"context": context, "choices": choices, "gold": choices.index(answer)}


def agreement_item(rng: random.Random) -> Item:
    """A held-out subject; the verb in both numbers."""
    sentence = agreement(rng, "test")
    return _item(rng, sentence.subject, sentence.verb, [sentence.wrong])


def fact_item(rng: random.Random) -> Item:
    """A fact with three wrong answers of the same relation. No facts are held out."""
    fact = rng.choice(FACTS)
    return _item(rng, fact.stem, fact.answer, rng.sample(fact.others, 3))


def arithmetic_item(rng: random.Random) -> Item:
    """A sum with three wrong sums near the right one. No sums are held out."""
    a, b = rng.randrange(10), rng.randrange(10)
    near = [str(n) for n in range(max(0, a + b - 4), min(18, a + b + 4) + 1) if n != a + b]
    return _item(rng, f"{a} plus {b} equals", str(a + b), rng.sample(near, 3))


def copying_item(rng: random.Random) -> Item:
    """A held-out list of four different words, cut within its second half; the choices are its words."""
    while True:
        listed = copying(rng, "test", COPIED, 4, 4)
        if len(set(listed)) == len(listed):
            break
    done = rng.randrange(4)
    context = " ".join(("copy", *listed, "to", *listed[:done]))
    return _item(rng, context, listed[done], [word for word in listed if word != listed[done]])


def _textqa_items(rng: random.Random) -> list[Item]:
    balance, items = Balance(rng), list[Item]()
    while len(items) < ITEMS:
        scene = draw_scene(rng, "test")
        for q in balance.choose(text_questions(scene), 1):
            pool = next(pool for pool in POOLS if q.answer in pool)
            wrong = _tempting(rng, [word for word in pool if word != q.answer], caption(scene))
            items.append(_item(rng, f"{caption(scene)} Q {q.words} A:", q.answer, wrong))
    return items


def _tempting(rng: random.Random, wrong: list[str], context: str) -> list[str]:
    """Three wrong answers; answers that are true for another thing of the scene come first."""
    rng.shuffle(wrong)
    return sorted(wrong, key=lambda word: word not in context.split())[:3]


MAKERS: dict[str, Callable[[random.Random], Item]] = {
    "agreement": agreement_item,
    "facts": fact_item,
    "arithmetic": arithmetic_item,
    "copying": copying_item,
}
TEXT_TASKS = (*MAKERS, "textqa")


def text_items(task: str) -> list[Item]:
    """Items of a text task; every call returns the same ones."""
    rng = random.Random(hashed(f"text {task} v{WORLD_VERSION}"))
    if task == "textqa":
        return _textqa_items(rng)
    return [MAKERS[task](rng) for _ in range(ITEMS)]
