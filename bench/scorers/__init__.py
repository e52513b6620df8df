"""Scorers: pure functions from a prediction and the gold to 0..1, each with a version."""

from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.table import own_answer, readings, score, set_metrics

__all__ = ["Gold", "own_answer", "readings", "score", "set_metrics"]
