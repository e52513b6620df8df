"""Bounds on time that a slow or busy machine keeps too."""

from __future__ import annotations

import json
import statistics
import time

_USUAL = 0.0125
"""CPU seconds of `_work` on the machine where the bounds were set, with nothing else running."""


def within(taken: float, bound: float) -> bool:
    """Whether something took fewer seconds than `bound` on that machine, or as many more as `_work` takes here now."""
    return taken < bound or taken < bound * statistics.median(_work() for _ in range(5)) / _USUAL


def _work() -> float:
    """CPU seconds of a fixed piece of Python: cores that share caches or clocks with others take longer."""
    began = time.process_time()
    for _ in range(10):
        data = {str(number): [number] * 10 for number in range(300)}
        json.loads(json.dumps(data, indent=1))
    return time.process_time() - began
