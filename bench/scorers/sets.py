"""Scorers that need all items of a task at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from moextend.bench.scorers import options, rules
from moextend.bench.scorers.forms import plain
from moextend.bench.scorers.gold import Answered, Gold
from moextend.errors import InputError

TURN = 1_000_000
"""Rotations of an MMBench question have ids that are equal modulo this number."""


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
