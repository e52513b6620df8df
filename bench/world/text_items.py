"""Text tasks: multiple-choice items with one right answer, as JSON lines for lm-eval."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from moextend.bench.world import words
from moextend.bench.world.questions import Balance
from moextend.bench.world.scenes import WORLD_VERSION, caption, draw_scene, hashed
from moextend.bench.world.text import COPIED, FACTS, agreement, copying, text_questions
from moextend.util.files import write_text

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
        listed = copying(rng, "test", COPIED, 4, 4).listed
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


def write_items(folder: Path) -> list[Path]:
    """Writes `<task>.jsonl` for every text task; returns the files."""
    import json

    paths = []
    for task in TEXT_TASKS:
        path = folder / f"{task}.jsonl"
        write_text(path, "".join(json.dumps(item) + "\n" for item in text_items(task)))
        paths.append(path)
    return paths
