"""Three readings of an answer besides its score, to distinguish forgetting a format from forgetting the answer."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.bench.scorers import rules
from moextend.bench.scorers.forms import vqa_form
from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.table import own_answer


def readings(
    prediction: str, gold: Gold, *, right: bool = False, likelihoods: Sequence[float] | None = None
) -> dict[str, float]:
    """`strict` and `normalised`, 0 or 1, and `likelihood` if the choices' log-likelihoods are known.

    strict: the exact gold text, or its letter. normalised: the maximum of the task's scorer (`right`), or the gold
    answer in the official VQA form, or words that contain it; with choices, its letter in a usual format. likelihood:
    the right choice has the highest log-likelihood (the first of equal ones); missing without choices or without a
    known right one.
    """
    text = prediction.strip()
    golds = {answer.strip() for answer in gold.answers} | {own_answer("letter@1", gold)}
    found = {
        "strict": float(bool(text) and text in golds),
        "normalised": float(right or _normalised(prediction, gold)),
    }
    position = rules.gold_position(gold) if likelihoods and gold.choices else None
    if position is not None and likelihoods and len(likelihoods) == len(gold.choices or ()):
        found["likelihood"] = float(max(range(len(likelihoods)), key=likelihoods.__getitem__) == position)
    return found


def _normalised(prediction: str, gold: Gold) -> bool:
    if rules.matches(prediction, gold.answers, vqa_form) or rules.option(prediction, gold) == 1.0:
        return True
    return gold.choices is None and _contains(prediction, gold.answers)


def _contains(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction contains the words of an answer consecutively."""
    predicted = f" {vqa_form(prediction)} "
    return any(form and f" {form} " in predicted for form in map(vqa_form, answers))
