"""Scorers: pure functions from predictions and golds to values, each with a version; see docs/scorers.md."""

from moextend.bench.scorers.gold import Answered, Gold, Scorer
from moextend.bench.scorers.table import (
    KNOWN,
    SetScore,
    find_scorer,
    is_lettered,
    own_answer,
    readings,
    score_set,
    search,
    shows,
    source_of,
)

__all__ = [
    "KNOWN",
    "Answered",
    "Gold",
    "Scorer",
    "SetScore",
    "find_scorer",
    "is_lettered",
    "own_answer",
    "readings",
    "score_set",
    "search",
    "shows",
    "source_of",
]
