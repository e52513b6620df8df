"""CIDEr-D (Vedantam et al. 2015, with the clipping and length penalty of the COCO evaluation).

pycocoevalcap has it too, but needs a Java program to split words. The tests compare with it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from moextend.bench.scorers import options, rules
from moextend.bench.scorers.forms import plain
from moextend.bench.scorers.gold import Answered, Gold
from moextend.errors import InputError

ORDERS = 4
SIGMA = 6.0
TOP = 10.0
"""CIDEr-D of a caption that equals its only reference."""
Gram = tuple[str, ...]

_NAMED = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_DROPPED = frozenset(
    {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", '"', *"–—“”„«»\u200b"}
)
_TWO = {"cannot": "can not", "gonna": "gon na", "wanna": "wan na", "gotta": "got ta", "'twas": "'t was"}
_SHORT = re.compile(r"(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|no|prof|gen|co|inc|ltd|e\.g|i\.e|(?:\w\.)+\w)\.")
_TOKEN = re.compile(
    r"https?://\S+|[\w.+-]+@[\w-]+\.[\w.]+|</?\w+>"
    r"|(?:[^\W\d]\.){2,}"
    r"|[-+]?(?:\d+|\.\d+)(?:[.,:/]\d+)*(?![\w']|[-/]\w)"
    r"|'(?:s|m|d|re|ve|ll)\b|\bn't\b"
    r"|@?\w+(?:[-./']\w+)*"
    r"|\.\.\.|--|[?!]{2,}|[^\w\s]"
)
_ENDING = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))$")


TURN = 1_000_000
"""Rotations of an MMBench question have ids that are equal modulo this number."""


def ptb_tokens(text: str) -> list[str]:
    """Lower-case words in Penn Treebank style, without punctuation, as in the COCO evaluation.

    Contractions are split ("do n't", "man 's"), words with hyphens are one, brackets have names.
    """
    return list(_tokens(text.lower().replace("’", "'")))


@lru_cache(maxsize=1 << 16)
def _tokens(text: str) -> tuple[str, ...]:
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        word = match[0]
        if text.startswith(".", match.end()) and _SHORT.fullmatch(f"{word}."):
            word += "."
        expanded = _TWO.get(word) or (_ENDING.sub(r" \1", word) if "'" in word else word)
        parts = expanded.split(" ")
        found += [_NAMED.get(part, part) for part in parts if part not in _DROPPED]
    return tuple(found)


@dataclass(frozen=True)
class _Vector:
    """tf-idf weights and norms by order of the n-grams, and the length for the penalty."""

    weights: Sequence[dict[Gram, float]]
    norms: Sequence[float]
    length: int


def cider_d(answered: Sequence[Answered]) -> list[float]:
    """CIDEr-D of every item, 0..10; rare n-grams in the references of these items have larger weights.

    g(c, s) = 10/4 sum_n exp(-(l_c - l_s)^2 / 2 sigma^2) min(c_n, s_n) s_n / (|c_n| |s_n|), averaged over the
    references s. Weights are counts times log(items / items with the n-gram in their references); lengths are counted
    in pairs of words. A set of one item scores 0, because all weights are zero.
    """
    frequency: Counter[Gram] = Counter()
    for one in answered:
        frequency.update(set().union(*(order for answer in one.answers for order in _grams(answer))))
    unseen = math.log(len(answered)) if answered else 0.0
    rarity = {gram: unseen - math.log(images) for gram, images in frequency.items()}
    return [_cider(one, rarity, unseen) for one in answered]


def _cider(one: Answered, rarity: Mapping[Gram, float], unseen: float) -> float:
    predicted = _vector(one.prediction, rarity, unseen)
    if not predicted.weights[0]:
        return 0.0
    against = [_vector(answer, rarity, unseen) for answer in one.answers]
    return min(TOP, TOP * sum(_likeness(predicted, other) for other in against) / len(against))


def _grams(text: str) -> list[list[Gram]]:
    """The n-grams of a text's words, by order."""
    words = ptb_tokens(text)
    return [list(zip(*(words[i:] for i in range(n)), strict=False)) for n in range(1, ORDERS + 1)]


def _vector(text: str, rarity: Mapping[Gram, float], unseen: float) -> _Vector:
    orders = _grams(text)
    weights = []
    for grams in orders:
        order = dict.fromkeys(grams, 0.0)
        for gram in grams:
            order[gram] += rarity.get(gram, unseen)
        weights.append(order)
    norms = [math.hypot(*order.values()) for order in weights]
    return _Vector(weights, norms, len(orders[1]))


def _likeness(predicted: _Vector, other: _Vector) -> float:
    """Clipped cosine with the length penalty, the mean over the orders."""
    total = 0.0
    for mine, theirs, a, b in zip(
        predicted.weights, other.weights, predicted.norms, other.norms, strict=True
    ):
        if a and b:
            common = sum(
                min(weight, theirs[gram]) * theirs[gram] for gram, weight in mine.items() if gram in theirs
            )
            total += common / (a * b)
    return total / ORDERS * math.exp(-((predicted.length - other.length) ** 2) / (2 * SIGMA**2))


def circular(answered: Sequence[Answered]) -> list[float | None]:
    """MMBench: a question is right only if every rotation of its choices is right by `options.option`.

    The first rotation has the question's value; the others have None, as they do not count by themselves.
    """
    questions = [_question(one) for one in answered]
    right: dict[int, float] = {}
    for question, one in zip(questions, answered, strict=True):
        right[question] = min(right.get(question, 1.0), options.option(one.prediction, one))
    return [right.pop(question, None) for question in questions]


def _question(one: Answered) -> int:
    if not one.id.isdecimal():
        raise InputError(
            f"id '{one.id}' is not a number: rotations are identified by ids modulo {TURN:,}.",
            where="scorer circular",
            hint="Name MMBench's column 'index' in columns.id.",
        )
    return int(one.id) % TURN


def yes_no(pairs: Iterable[tuple[str, Gold]]) -> dict[str, float]:
    """POPE's metrics besides accuracy, in percent: precision, recall, F1 and the share of predicted "yes"."""
    read = Counter((rules.yes_or_no(prediction), plain(gold.answers[0])) for prediction, gold in pairs)
    positives = sum(n for (answer, _), n in read.items() if answer == "yes")
    meant = sum(n for (_, gold), n in read.items() if gold == "yes")
    hits = read[("yes", "yes")]
    precision, recall = hits / positives if positives else 0.0, hits / meant if meant else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    values = {"precision": precision, "recall": recall, "f1": f1, "yes": positives / max(1, read.total())}
    return {key: 100 * value for key, value in values.items()}
