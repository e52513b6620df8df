"""One function per scorer: (prediction, gold) -> 0..1. An empty prediction is never right."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable
from math import isfinite

from rapidfuzz.distance import Levenshtein

from moextend.bench.scorers.forms import evalai_form, one_line, plain, vqa_form, words_form
from moextend.bench.scorers.gold import Gold
from moextend.data.cells import right_choice

_THE_ANSWER_IS = re.compile(r"The answer is ([A-Z])\.?")
TOLERANCE = 0.05
_LETTER = re.compile(r"^[(\[]?([A-Z])(?:[)\].:,]+(?:\s.*)?)?$", re.DOTALL | re.IGNORECASE)
_ANSWER_IS = re.compile(r"\banswer(?: is)?:? ?[(\[]?([A-Z])(?:[)\].:,]|$)", re.IGNORECASE)


def same(prediction: str, gold: str, form: Callable[[str], str]) -> bool:
    """Whether both have the same form; a text without letters and digits must be equal to the gold answer."""
    return matches(prediction, (gold,), form) == 1


def matches(prediction: str, answers: Iterable[str], form: Callable[[str], str]) -> int:
    """Number of answers that are the `same` as the prediction."""
    if any(letter.isalnum() for letter in prediction):
        predicted = form(prediction)
        return sum(form(answer) == predicted for answer in answers)
    predicted = prediction.strip()
    return sum(answer.strip() == predicted for answer in answers) if predicted else 0


def exact(prediction: str, gold: Gold) -> float:
    """1 for a gold answer, up to case, outer spaces and final periods (GQA)."""
    return float(matches(prediction, gold.answers, plain) > 0)


def consensus(matching: int, annotators: int) -> float:
    """Mean over the leave-one-out sets of min(1, matches / 3).

    (m min(1, (m-1)/3) + (n-m) min(1, m/3)) / n for n annotators, m of them with the prediction. With fewer than four
    annotators all the others must match, and a single annotator must match.
    """
    if annotators == 1:
        return float(matching)
    needed = min(3, annotators - 1)
    own = matching * min(1.0, (matching - 1) / needed) if matching else 0.0
    return (own + (annotators - matching) * min(1.0, matching / needed)) / annotators


def vqa(prediction: str, gold: Gold) -> float:
    """Official VQAv2 accuracy: consensus of the annotators, in normal form unless all of them agree."""
    agreed = len({one_line(answer) for answer in gold.answers}) == 1
    form = one_line if agreed and len(gold.answers) > 1 else vqa_form
    return consensus(matches(prediction, gold.answers, form), len(gold.answers))


def vqa2(prediction: str, gold: Gold) -> float:
    """VQAv2 accuracy of lmms-eval: consensus in the official form, also if all annotators agree."""
    return consensus(matches(prediction, gold.answers, vqa_form), len(gold.answers))


def evalai(prediction: str, gold: Gold) -> float:
    """TextVQA and VizWiz accuracy: consensus in the EvalAI form, always."""
    return consensus(matches(prediction, gold.answers, evalai_form), len(gold.answers))


def gold_position(gold: Gold) -> int | None:
    """Position of the right choice: the item's own, else of the choice that the answer repeats, else the one whose
    letter it is.
    """
    return right_choice(gold.answers, gold.choices, gold.position)


def letter(prediction: str, gold: Gold) -> float:
    """1 for the right letter as "B", "B. ..." or "The answer is B." (ScienceQA); everything else is wrong.

    A question without choices among others is scored by `exact`.
    """
    text, right = prediction.strip(), gold_position(gold)
    if right is None:
        return exact(prediction, gold)
    options = string.ascii_uppercase[: len(gold.choices or ()) or 26]
    if text in options and len(text) == 1:
        predicted = text
    elif text[:1] in options and text[1:3] == ". ":
        predicted = text[0]
    else:
        found = _THE_ANSWER_IS.findall(text)
        predicted = found[0] if len(found) == 1 else ""
    return float(predicted == string.ascii_uppercase[right])


def option(prediction: str, gold: Gold) -> float:
    """1 for the right letter in a usual format, or for exactly the text of the right choice.

    "(b)", "b:", "B) red", "the answer is (b)", "Answer: B". A question without choices among others is scored as
    `exact`; what names no letter, or several, is wrong.
    """
    right = gold_position(gold)
    if right is None:
        return exact(prediction, gold)
    if letter(prediction, gold):
        return 1.0
    # A choice may itself be a letter: then "B" is the second choice, not the choice with the text "B".
    lettered = prediction.strip() in tuple(string.ascii_uppercase[: len(gold.choices or ())])
    if gold.choices and not lettered and same(prediction, gold.choices[right], vqa_form):
        return 1.0
    dressed = _LETTER.match(prediction.strip())
    predicted = {dressed[1]} if dressed else set(_ANSWER_IS.findall(prediction))
    return float({found.upper() for found in predicted} == {string.ascii_uppercase[right]})


def anls(prediction: str, gold: Gold) -> float:
    """Average normalised Levenshtein similarity (DocVQA): maximum over the answers, 0 below one half."""
    if not prediction.strip():
        return 0.0
    best = max(_similarity(words_form(prediction), words_form(answer)) for answer in gold.answers)
    return best if best >= 0.5 else 0.0


def _similarity(a: str, b: str) -> float:
    length = max(len(a), len(b))
    return 1 - levenshtein(a, b) / length if length else 0.0


def levenshtein(a: str, b: str) -> int:
    """Insertions, deletions and replacements from `a` to `b`."""
    return int(Levenshtein.distance(a, b))


def yes_or_no(prediction: str) -> str:
    """POPE's own reading: "no" where the first sentence has the word No, no or not, else "yes"; "" of nothing.

    Commas are deleted, so that "no,yes" is one word; words end at spaces, and "NO" is none of the three.
    """
    predicted = prediction.strip()
    words = predicted.split(".")[0].replace(",", "").split(" ")
    return ("no" if {"No", "no", "not"} & set(words) else "yes") if predicted else ""


def pope(prediction: str, gold: Gold) -> float:
    """1 where the answer, read by `yes_or_no`, is the gold one."""
    return float(yes_or_no(prediction) == plain(gold.answers[0]))


def spoken(answer: str) -> str:
    """A gold answer of POPE as a model should generate it: unchanged, or ("NO") in lower case for `yes_or_no`."""
    form = plain(answer)
    return answer if yes_or_no(answer) == form or yes_or_no(form) != form else form


def mme(prediction: str, gold: Gold) -> float:
    """1 for the right answer where the prediction is "yes" or "no", or has it in its first four characters (lmms-eval).

    "y" and "n" count; all else is neither, and wrong: "The image shows a dog." is no "yes".
    """
    text = prediction.lower().strip().replace(".", "")
    read = {"y": "yes", "n": "no"}.get(text) or next((word for word in ("yes", "no") if word in text[:4]), "")
    return float(read == plain(gold.answers[0]))


def relaxed(prediction: str, gold: Gold) -> float:
    """ChartQA's relaxed accuracy: numbers within 5% of the target (percent as hundredths).

    Other texts, and a target of 0, must be equal up to case and final periods.
    """
    return float(any(_relaxed(prediction, answer) for answer in gold.answers))


def _relaxed(prediction: str, answer: str) -> bool:
    predicted, target = _number(prediction), _number(answer)
    if predicted is not None and target:
        return abs(predicted - target) / abs(target) <= TOLERANCE
    return same(prediction, answer, plain)


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        value = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None  # "nan" and "inf" are texts
