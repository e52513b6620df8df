"""Numbers within a tolerance: ChartQA's rule, and one that reads separators, currencies and units."""

from __future__ import annotations

import re
from math import isfinite

from moextend.bench.scorers.forms import plain
from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.rules import same

TOLERANCE = 0.05
_QUANTITY = re.compile(
    r"(?P<sign>[-+−]?)\s*(?P<currency>[$€£¥]?)\s*"
    r"(?P<number>\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?(?:e[-+]?\d+)?|\.\d+)"
    r"\s*(?P<unit>%|[^\d\s.,%][^\d]*)?",
    re.IGNORECASE,
)
_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}


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


def number(prediction: str, gold: Gold) -> float:
    """Like `relaxed`, and reads "1,200", "1 200", "$5", "3.2 million", "5 kg".

    If prediction and target both have a unit (or currency), it must be equal up to a plural s. A target of 0 must be
    matched exactly.
    """
    return float(any(_near(prediction, answer) for answer in gold.answers))


def _near(prediction: str, answer: str) -> bool:
    predicted, target = quantity(prediction), quantity(answer)
    if predicted is None or target is None:
        return same(prediction, answer, plain)
    fits = not predicted[1] or not target[1] or predicted[1] == target[1]
    return fits and abs(predicted[0] - target[0]) <= TOLERANCE * abs(target[0])


def quantity(text: str) -> tuple[float, str] | None:
    """Number and unit ("" without one) if they are the full text; percent are hundredths, without unit."""
    match = _QUANTITY.fullmatch(text.strip().rstrip(".").strip())
    if match is None:
        return None
    value = float(re.sub("[, ]", "", match["number"])) * (-1 if match["sign"] in ("-", "−") else 1)
    words = (match["unit"] or "").lower().split()
    if words == ["%"] or words in (["percent"], ["per", "cent"]):
        return value / 100, ""
    if words and words[0] in _SCALES:
        value *= _SCALES[words.pop(0)]
    unit = " ".join([match["currency"], *words]).strip()
    singular = unit.removesuffix("s") if len(unit) > 2 else unit
    return (value, singular) if isfinite(value) else None
