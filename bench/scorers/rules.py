"""One function a scorer: prediction and gold -> 0..1. No rule marks an empty prediction right."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

from moextend.bench.scorers.forms import evalai_form, one_line, plain, vqa_form, words_form
from moextend.bench.scorers.gold import Gold

_THE_ANSWER_IS = re.compile(r"The answer is ([A-Z])\.?")
_LETTER = re.compile(r"^[(\[]?([A-Z])(?:[)\].:,]+(?:\s.*)?)?$", re.DOTALL | re.IGNORECASE)


def same(prediction: str, gold: str, form: Callable[[str], str]) -> bool:
    """Whether both have one form; without a letter or digit in it, a prediction must repeat the gold."""
    if any(letter.isalnum() for letter in prediction):
        return form(prediction) == form(gold)
    return bool(prediction.strip()) and prediction.strip() == gold.strip()


def exact(prediction: str, gold: Gold) -> float:
    """1 for a gold answer, but for case, outer spaces and final periods (GQA)."""
    return float(any(same(prediction, answer, plain) for answer in gold.answers))


def consensus(matches: int, annotators: int) -> float:
    """Mean over the leave-one-out sets of min(1, matches / 3).

    (m min(1, (m-1)/3) + (n-m) min(1, m/3)) / n for n annotators of whom m gave the prediction. Fewer than
    four cannot give three others: all the others must match then, and of a single annotator the one.
    """
    if annotators == 1:
        return float(matches)
    needed = min(3, annotators - 1)
    own = matches * min(1.0, (matches - 1) / needed) if matches else 0.0
    return (own + (annotators - matches) * min(1.0, matches / needed)) / annotators


def vqa(prediction: str, gold: Gold) -> float:
    """Official VQAv2 accuracy: consensus of the annotators, normalised where they do not all agree."""
    agreed = len({one_line(answer) for answer in gold.answers}) == 1
    form = one_line if agreed and len(gold.answers) > 1 else vqa_form
    return consensus(sum(same(prediction, answer, form) for answer in gold.answers), len(gold.answers))


def evalai(prediction: str, gold: Gold) -> float:
    """TextVQA and VizWiz accuracy: consensus after the EvalAI form, always."""
    matches = sum(same(prediction, answer, evalai_form) for answer in gold.answers)
    return consensus(matches, len(gold.answers))


def gold_position(gold: Gold) -> int | None:
    """Position of the right choice: the choice that the answer repeats, else the one whose letter it is."""
    choices, answer = gold.choices or (), gold.answers[0].strip()
    texts = [choice.strip() for choice in choices]
    if answer in texts:
        return texts.index(answer)
    at = string.ascii_uppercase.find(answer) if len(answer) == 1 else -1
    return at if 0 <= at < (len(choices) or 26) else None


def letter(prediction: str, gold: Gold) -> float:
    """1 for the right letter, said as "B", "B. ..." or "The answer is B." (ScienceQA); all else is wrong.

    A question without choices among others is scored as `exact`.
    """
    text, right = prediction.strip(), gold_position(gold)
    if right is None:
        return exact(prediction, gold)
    options = string.ascii_uppercase[: len(gold.choices or ()) or 26]
    if text in options and len(text) == 1:
        said = text
    elif text[:1] in options and text[1:3] == ". ":
        said = text[0]
    else:
        found = _THE_ANSWER_IS.findall(text)
        said = found[0] if len(found) == 1 else ""
    return float(said == string.ascii_uppercase[right])


def lenient_letter(prediction: str, gold: Gold) -> float:
    """1 for the right letter in any usual dress ("(b)", "b:", "B) red"), or the right choice's text."""
    right = gold_position(gold)
    if right is None:
        return exact(prediction, gold)
    if letter(prediction, gold):
        return 1.0
    if gold.choices and same(prediction, gold.choices[right], vqa_form):
        return 1.0
    match = _LETTER.match(prediction.strip())
    return float(match is not None and match[1].upper() == string.ascii_uppercase[right])


def relaxed(prediction: str, gold: Gold) -> float:
    """ChartQA's relaxed accuracy: numbers within 5% of the target (percent as hundredths).

    What is no number, and a target of 0, must be the same text but for case and final periods.
    """
    return float(any(_relaxed(prediction, answer) for answer in gold.answers))


def _relaxed(prediction: str, answer: str) -> bool:
    said, target = _number(prediction), _number(answer)
    if said is not None and target:
        return abs(said - target) / abs(target) <= 0.05
    return same(prediction, answer, plain)


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def anls(prediction: str, gold: Gold) -> float:
    """Average normalised Levenshtein similarity (DocVQA): the best over the answers, 0 below one half."""
    if not prediction.strip():
        return 0.0
    best = max(_similarity(words_form(prediction), words_form(answer)) for answer in gold.answers)
    return best if best >= 0.5 else 0.0


def _similarity(a: str, b: str) -> float:
    length = max(len(a), len(b))
    return 1 - levenshtein(a, b) / length if length else 0.0


def levenshtein(a: Sequence[str], b: Sequence[str]) -> int:
    """Insertions, deletions and replacements from `a` to `b`."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        corner, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (left != right))
    return row[-1]


def yes_or_no(prediction: str) -> str:
    """POPE's reading: "no" where the first sentence has the word no or not, else "yes"; "" of nothing."""
    if not prediction.strip():
        return ""
    words = prediction.split(".")[0].replace(",", " ").lower().split()
    return "no" if "no" in words or "not" in words else "yes"


def pope(prediction: str, gold: Gold) -> float:
    """1 where the answer, read as yes or no, is the gold one."""
    return float(yes_or_no(prediction) == plain(gold.answers[0]))
