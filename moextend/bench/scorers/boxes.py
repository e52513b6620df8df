"""Boxes of grounding tasks: read from text, compared by intersection over union."""

from __future__ import annotations

import re
from math import isfinite
from typing import NamedTuple

from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.rules import exact

RIGHT = 0.5
"""Threshold of the IoU, at least."""
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_PAIR = rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)"
_CORNERS = re.compile(rf"{_PAIR}\s*,?\s*{_PAIR}")
_MARKS = re.compile(r"\{" + r"\s*<(\d+)>" * 4 + r"\s*\}")
_LOCATIONS = re.compile(r"<loc(\d{4})>" * 4)
# No two parts can match the same characters, and one bracket is enough: the search is linear in the text.
_LIST = re.compile(rf"[\[({{]\s*({_NUMBER})" + rf"(?:\s*,\s*|\s+)({_NUMBER})" * 3 + r"\s*[\])}]")
_BARE = re.compile(_NUMBER)


class Box(NamedTuple):
    """Left, top, right, bottom; fractions of the image, or (`unit` "pixel") its pixels."""

    left: float
    top: float
    right: float
    bottom: float
    unit: str

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.bottom - self.top)


def read_box(text: str) -> Box | None:
    """The first box in a text; None if there is none.

    "[x1, y1, x2, y2]" (any brackets, or four bare numbers and no other) are fractions if none is above 1, else
    pixels; "<box>(x1,y1),(x2,y2)</box>" counts in thousandths, "{<x1><y1><x2><y2>}" in hundredths and
    "<locY1><locX1><locY2><locX2>" in 1024ths. Two opposite corners are taken in either order.
    """
    found = _MARKS.search(text)
    if found:
        return _box(found.groups(), 100)
    found = _LOCATIONS.search(text)
    if found:
        top, left, bottom, right = found.groups()
        return _box((left, top, right, bottom), 1024)
    found = _CORNERS.search(text)
    if found:
        return _box(found.groups(), 1000 if "<box>" in text else None)
    found = _LIST.search(text)
    numbers = found.groups() if found else tuple(_BARE.findall(text))
    return _box(numbers, None) if len(numbers) == 4 else None


def _box(numbers: tuple[str, ...], grid: int | None) -> Box | None:
    values = [float(number) for number in numbers]
    if not all(isfinite(value) and abs(value) < 1e9 for value in values):
        return None
    unit = "pixel" if grid is None and max(values) > 1 else "fraction"
    x1, y1, x2, y2 = (value / (grid or 1) for value in values)
    return Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2), unit)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union; 0 for boxes in different units, and for unequal boxes without area."""
    if a == b:
        return 1.0
    wide = min(a.right, b.right) - max(a.left, b.left)
    high = min(a.bottom, b.bottom) - max(a.top, b.top)
    if a.unit != b.unit or wide <= 0 or high <= 0:
        return 0.0
    return wide * high / (a.area + b.area - wide * high)


def iou(prediction: str, gold: Gold) -> float:
    """Maximum intersection over union with the gold boxes; a gold answer without a box is scored by `exact`."""
    return (
        max(_iou(prediction, answer) for answer in gold.answers) if _boxed(gold) else exact(prediction, gold)
    )


def grounding(prediction: str, gold: Gold) -> float:
    """1 if the IoU is at least one half (lmms-eval); a gold answer without a box is scored by `exact`."""
    return float(iou(prediction, gold) >= RIGHT)


def _boxed(gold: Gold) -> bool:
    return all(read_box(answer) is not None for answer in gold.answers)


def _iou(prediction: str, answer: str) -> float:
    predicted, meant = read_box(prediction), read_box(answer)
    return overlap(predicted, meant) if predicted and meant else 0.0
