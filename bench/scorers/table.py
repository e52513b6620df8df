"""The scorers by name and version: a changed rule gets a new version."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterable

from moextend.bench.scorers import rules
from moextend.bench.scorers.forms import plain, vqa_form
from moextend.bench.scorers.gold import Gold
from moextend.lookup import choose

SCORERS: dict[str, Callable[[str, Gold], float]] = {
    "exact@1": rules.exact,
    "vqa@1": rules.vqa,
    "evalai@1": rules.evalai,
    "letter@1": rules.letter,
    "relaxed@1": rules.relaxed,
    "anls@1": rules.anls,
    "pope@1": rules.pope,
}


def score(name: str, prediction: str, gold: Gold, *, where: str | None = None) -> float:
    """0..1 for a prediction; UnknownName for a scorer that there is not."""
    return choose("scorer", name, SCORERS, where=where)(prediction, gold)


def own_answer(name: str, gold: Gold) -> str:
    """What a model that knows the gold would say: the most common answer, or its letter."""
    position = rules.gold_position(gold) if name.startswith("letter@") else None
    if position is not None:
        return string.ascii_uppercase[position]
    return Counter(gold.answers).most_common(1)[0][0]


def readings(prediction: str, gold: Gold) -> dict[str, float]:
    """Two readings beside the score, 0 or 1: `strict` and `normalised`.

    Strict is the gold text as it is, or its letter; normalised compares after the official VQA form, or takes
    the letter in any dress. Far apart, they say that the form of the answers is at fault.
    """
    text = prediction.strip()
    golds = {answer.strip() for answer in gold.answers} | {own_answer("letter@1", gold)}
    loose = any(rules.same(prediction, answer, vqa_form) for answer in gold.answers)
    return {
        "strict": float(bool(text) and text in golds),
        "normalised": float(loose or rules.lenient_letter(prediction, gold) == 1.0),
    }


def set_metrics(name: str, pairs: Iterable[tuple[str, Gold]]) -> dict[str, float]:
    """Metrics of all items together, in percent: for POPE precision, recall, F1 and share of "yes"."""
    if not name.startswith("pope@"):
        return {}
    read = Counter((rules.yes_or_no(prediction), plain(gold.answers[0])) for prediction, gold in pairs)
    said = sum(n for (answer, _), n in read.items() if answer == "yes")
    meant = sum(n for (_, gold), n in read.items() if gold == "yes")
    hits = read[("yes", "yes")]
    precision, recall = hits / said if said else 0.0, hits / meant if meant else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    values = {"precision": precision, "recall": recall, "f1": f1, "yes": said / max(1, read.total())}
    return {key: 100 * value for key, value in values.items()}
