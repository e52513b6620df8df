"""Scorers of single items, called for one item."""

from typing import Any

from moextend.bench.scorers import find_scorer
from moextend.bench.scorers.table import BY_NAME

SINGLE = sorted(name for name, scorer in BY_NAME.items() if scorer.item is not None)


def score(name: str, prediction: str, gold: Any) -> float:
    """0..1 for one prediction."""
    item = find_scorer(name).item
    assert item is not None, f"{name} needs all items at once"
    return item(prediction, gold)
