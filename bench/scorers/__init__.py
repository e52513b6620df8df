"""Scorers: pure functions from predictions and golds to values, each with a version; see docs/scorers.md."""

from moextend.bench.scorers.gold import Answered, Gold
from moextend.bench.scorers.readings import readings
from moextend.bench.scorers.scorer import Scorer
from moextend.bench.scorers.table import (
    SetScore,
    find_scorer,
    is_lettered,
    own_answer,
    score,
    score_set,
    set_metrics,
)

__all__ = [
    "Answered",
    "Gold",
    "Scorer",
    "SetScore",
    "find_scorer",
    "is_lettered",
    "own_answer",
    "readings",
    "score",
    "score_set",
    "set_metrics",
]
