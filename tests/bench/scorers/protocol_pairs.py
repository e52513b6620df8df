"""Generated answers and golds for the frozen results of scorers of papers; the same pairs on every machine.

Only `Random.random` is drawn from: its sequence of a seed is the one that Python keeps from version to version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

COUNT = 2000
_WORDS = """red Red blue cat cats dog a an the The no No not yes Yes two 2 ten none left right city urban rural 1,000
3.5 50% u.s. x-y black/white don't dont isnt joe's Unanswerable unanswerable straße naïve é ; : !"""
WORDS = _WORDS.split()
PLACES = ("ohio", "texas", "utah", "maine", "iowa", "nevada", "idaho", "kansas")
_MEETING = "the council meeting approved Motion motion a budget of 1.5 million for roads u.s. and parks"
_NEWS = "Der Rat hat das Budget für die Straßen am Montag beschlossen , 3 Millionen Euro u.a. nicht"


@dataclass(frozen=True)
class Pair:
    """What was answered, the golds, and what else a paper's code reads."""

    prediction: str
    answers: tuple[str, ...]
    question: str = ""
    image: str = ""


@dataclass
class Draw:
    """Draws from a seed."""

    seed: int
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def below(self, n: int) -> int:
        return int(self.random.random() * n)

    def often(self, share: float) -> bool:
        return self.random.random() < share

    def one(self, things: Sequence[Any]) -> Any:
        return things[self.below(len(things))]

    def words(self, least: int, most: int, among: Sequence[str] = WORDS) -> str:
        return " ".join(self.one(among) for _ in range(least + self.below(most - least + 1)))


def changed(draw: Draw, gold: str) -> str:
    """The gold as a model may say it: another case, a period, words around it, a part of it."""
    forms: tuple[Callable[[], str], ...] = (
        lambda: gold,
        gold.lower,
        gold.upper,
        gold.capitalize,
        lambda: f"{gold}.",
        lambda: f"{gold}..",
        lambda: f"{gold}, {draw.words(1, 2)}",
        lambda: f"{draw.words(1, 2)} {gold}",
        lambda: f"{draw.words(1, 2)}{gold}",
        lambda: f"The answer is {gold}.",
        lambda: f"{gold}\n{draw.words(1, 3)}",
        lambda: gold.split()[0],
        lambda: gold[1:] or gold,
        lambda: gold.replace(" ", ""),
        lambda: gold.replace(" ", "  "),
    )
    return str(draw.one(forms)())


def words(draw: Draw) -> Pair:
    gold = draw.words(1, 3)
    return Pair(changed(draw, gold) if draw.often(0.7) else draw.words(1, 3), (gold,))


def letters(draw: Draw) -> Pair:
    gold, predicted = draw.one("ABCD"), draw.one("ABCDEabcdx")
    forms = (
        "{0}", "{0}.", "{0}. red", "{0}) red", "({0})", "The answer is {0}.", "the answer is {0}", "I think {0}",
        "A dog {0}", "{0}\nBecause it is so", "**{0}**", "Option {0}", "Answer: {0}", "{0}, {1}", "{1} or {0}",
        "red", "is {0} é", "{0}{1}", "5 {0}", "_ {0}", "\\boxed{{{0}}}", "{0}: it's {1}",
    )  # fmt: skip
    form = draw.one(forms)
    return Pair(form.format(gold if draw.often(0.5) else predicted, draw.one("ABCDE")), (gold,))


def boxes(draw: Draw) -> Pair:
    digits = 2 + draw.below(2)
    left, top = draw.random.random() * 0.6, draw.random.random() * 0.6
    corners = [left, top, left + 0.1 + draw.random.random() * 0.3, top + 0.1 + draw.random.random() * 0.3]
    size = 0.2 if draw.often(0.5) else 0.05
    moved = [value + (draw.random.random() - 0.5) * size for value in corners]
    gold = ", ".join(f"{value:.{digits}f}" for value in corners)
    predicted = [f"{value:.{digits}f}" for value in (corners if draw.often(0.2) else moved)]
    if draw.often(0.1):
        predicted = predicted[: draw.below(4)]
    form = draw.one(("[{}]", "[{}]", "[{}]", "({})", "{}", "[[{}]]", "the box is [{}]", " [{}].", "[{}] "))
    return Pair(form.format(draw.one((", ", ",", " ")).join(predicted)), (f"[{gold}]",))


def yes_or_no(draw: Draw) -> Pair:
    starts = (
        "Yes", "No", "yes", "no", "NO", "There is", "It is not", "there is no", "Nothing", "none", "Not", "know",
    )  # fmt: skip
    ends = (
        "", ".", ", there is no cat.", ", there is a cat.", ". No.", ". Yes, not.", "\nNo", " no", ",no", "!", "; no",
    )  # fmt: skip
    return Pair(draw.one(starts) + draw.one(ends), (draw.one(("yes", "no")),))


def votes(draw: Draw) -> Pair:
    if draw.often(0.25):  # all agree
        gold = draw.words(1, 2)
        return Pair(changed(draw, gold), (gold,) * 10)
    pool = [draw.words(1, 2) for _ in range(1 + draw.below(4))]
    golds = tuple(changed(draw, draw.one(pool)) if draw.often(0.3) else draw.one(pool) for _ in range(10))
    return Pair(changed(draw, draw.one(pool)) if draw.often(0.8) else draw.words(1, 2), golds)


def _sentences(draw: Draw, among: Sequence[str]) -> str:
    ends = (". ", ". ", "., ", " ... ", ".\n", "? ")
    return "".join(draw.words(1, 9, among) + draw.one(ends) for _ in range(1 + draw.below(4))).strip()


def summaries(draw: Draw) -> Pair:
    among = _MEETING.split()
    gold = _sentences(draw, among)
    if draw.often(0.3):
        predicted = " ".join(word for word in gold.split(" ") if draw.often(0.7)) or "the"
    else:
        predicted = _sentences(draw, among)
    return Pair(predicted.strip("., \n") or "the", (gold,))


def code(draw: Draw) -> Pair:
    among = (
        "x", "=", "self", "(", ")", "<STR_LIT>", "<NUM_LIT>", "<CHAR_LIT>", "<STR_LIT:utf-8>", "<NUM_LIT:1>",
        "<NUM_LIT:42>", "<STR_LIT:a b>", "<CHAR_LIT:c>", "return", "def", "foo", ".", ",", "<STR_LIT:a\nb>",
        "<STR_LIT:<x>>", "import", "os",
    )  # fmt: skip
    gold = draw.words(1, 14, among) if draw.often(0.9) else draw.words(60, 90, among)
    pieces = [piece if draw.often(0.8) else draw.one(among) for piece in gold.split(" ")]
    return Pair(" ".join(pieces) if draw.often(0.7) else draw.words(1, 14, among), (gold,))


def simplified(draw: Draw) -> Pair:
    among = _NEWS.split()
    source = draw.words(3, 14, among)
    kept = " ".join(word for word in source.split(" ") if draw.often(0.7)) or "Der"
    gold = f"{kept} {draw.words(1, 3, among)}." if draw.often(0.7) else draw.words(2, 9, among)
    predicted = changed(draw, gold) if draw.often(0.4) else draw.words(1, 10, among)
    return Pair(predicted, (gold,), question=source)


def science(draw: Draw) -> Pair:
    image = draw.one(("AI2D", "TQA", "VQA", "SciVerse", "MapQA", "other")) + f"_{draw.below(99)}.png"
    if draw.often(0.4):
        question = f"{draw.one(('Which states', 'which states', 'In which states'))} have 5%?"
        gold = draw.one((",", ", ")).join(draw.one(PLACES) for _ in range(1 + draw.below(4)))
        predicted = draw.one((",", ", ")).join(draw.one(PLACES) for _ in range(1 + draw.below(4)))
        return Pair(gold.title() if draw.often(0.3) else predicted, (gold,), question, f"images/{image}")
    pair = words(draw)
    return Pair(pair.prediction, pair.answers, "What is shown?", f"images/{image}")


KINDS: dict[str, Callable[[Draw], Pair]] = {
    "words": words,
    "letters": letters,
    "boxes": boxes,
    "yes_or_no": yes_or_no,
    "votes": votes,
    "summaries": summaries,
    "code": code,
    "simplified": simplified,
    "science": science,
}


def pairs(kind: str, seed: int = 0, count: int = COUNT) -> list[Pair]:
    """`count` pairs of a kind; predictions without outer spaces and never empty, as the papers' models write them."""
    draw = Draw(seed)
    found: list[Pair] = []
    while len(found) < count:
        pair = KINDS[kind](draw)
        predicted = pair.prediction.strip()
        if any(letter.isalnum() for letter in predicted):
            found.append(Pair(predicted, pair.answers, pair.question, pair.image))
    return found


def pairs_digest(found: Sequence[Pair]) -> str:
    """Names the pairs: another digest, other pairs."""
    lines = [[pair.prediction, list(pair.answers), pair.question, pair.image] for pair in found]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]
