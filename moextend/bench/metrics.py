"""Metrics of continual learning: pure functions of the accuracy matrix.

A[t][i] is the score (0..100) on task i after stage t. Row 0 is the base. The columns are the tasks in training order:
task i (from 1) is in column i-1 and is learned at stage i. T tasks give T+1 rows. A cell without a score is None, and
so is a metric that needs such a cell, or is not defined for the matrix (backward transfer of a single task).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal

Matrix = Sequence[Sequence[float | None]]


def _cells(values: Iterable[float | None]) -> list[float] | None:
    """The values; None if one of them is unknown or there are none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return known if known and len(known) == len(found) else None


def average(values: Iterable[float | None]) -> float | None:
    """The mean; None if a value is unknown or there are none."""
    known = _cells(values)
    return None if known is None else fmean(known)


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def length(a: Matrix) -> int:
    """T, the number of tasks; ValueError if the matrix is not (T+1) x T."""
    tasks = len(a) - 1
    if tasks < 1 or any(len(row) != tasks for row in a):
        raise ValueError(
            f"not a (T+1) x T matrix: {len(a)} rows of {sorted({len(row) for row in a})} columns"
        )
    return tasks


def acc(a: Matrix) -> float | None:
    """Final average: 1/T sum_i A[T][i] (also AP, Last, MFN)."""
    return average(a[length(a)])


def zero_shot(a: Matrix) -> float | None:
    """Average of the base before any stage: 1/T sum_i A[0][i]."""
    length(a)
    return average(a[0])


def mft(a: Matrix) -> float | None:
    """Learning accuracy: 1/T sum_i A[i][i]."""
    return average(a[i][i - 1] for i in range(1, length(a) + 1))


def maa(a: Matrix) -> float | None:
    """Mean average accuracy: 1/T sum_t (1/t) sum_{i<=t} A[t][i]."""
    return average(average(a[t][:t]) for t in range(1, length(a) + 1))


def bwt(a: Matrix, *, divisor: Literal["T-1", "T"] = "T-1") -> float | None:
    """Backward transfer: 1/(T-1) sum_{i<T} (A[T][i] - A[i][i]); divisor "T" is CoIN's variant."""
    last = length(a)
    known = _cells(_less(a[last][i - 1], a[i][i - 1]) for i in range(1, last))
    if known is None:
        return None
    return sum(known) / (last if divisor == "T" else last - 1)


def forgetting(a: Matrix, *, variant: Literal["max", "max-all", "first"] = "max") -> float | None:
    """Forgetting: 1/(T-1) sum_{i<T} (best[i] - A[T][i]).

    best[i] by variant: "max" is max of A[l][i] over i <= l < T (since the task was learned, without the last
    row; may be below A[T][i]); "max-all" takes the last row in as well (then F >= 0); "first" is A[i][i]
    (then F = -BWT).
    """
    last = length(a)
    lost: list[float | None] = []
    for i in range(1, last):
        stop = {"max": last, "max-all": last + 1, "first": i + 1}[variant]
        since = _cells(a[row][i - 1] for row in range(i, stop))
        lost.append(_less(max(since) if since else None, a[last][i - 1]))
    return average(lost)


def fwt(a: Matrix, *, chance: Sequence[float | None] | None = None) -> float | None:
    """Forward transfer: mean_{i>=2} (A[i-1][i] - A[0][i]); with `chance`, chance[i] stands for A[0][i]."""
    before = a[0] if chance is None else chance
    return average(_less(a[i - 1][i - 1], before[i - 1]) for i in range(2, length(a) + 1))


def intransigence(a: Matrix, joint: Sequence[float | None]) -> float | None:
    """Intransigence: mean_i (A_joint[i] - A[i][i]); `joint` is the final row of joint training."""
    return average(_less(joint[i - 1], a[i][i - 1]) for i in range(1, length(a) + 1))


def worst_case_acc(a: Matrix) -> float | None:
    """Worst-case accuracy: 1/T A[T][T] + (1 - 1/T) mean_{i<T} min_{l>i} A[l][i] (De Lange et al., 2023).

    The minimum is taken over the ends of the stages, so drops inside a stage are not seen.
    """
    last = length(a)
    final = a[last][last - 1]
    if last == 1:
        return final
    lows: list[float | None] = []
    for i in range(1, last):
        later = _cells(a[row][i - 1] for row in range(i + 1, last + 1))
        lows.append(min(later) if later else None)
    low = average(lows)
    return None if final is None or low is None else final / last + (1 - 1 / last) * low


Weights = dict[tuple[int, int], float]
"""(stage t, column i) -> weight of A[t][i]."""


def weights(name: str, a: Matrix) -> Weights | None:
    """The metric as a sum over cells, sum A[t][i] weights[t, i]; None if it is not known.

    `name`: la, acc, bwt, fm ("max", with the best row of this matrix) or fwt; divisors as above.
    """
    last = length(a)
    first, ends = range(1, last + 1), {(last, i - 1): 1.0 for i in range(1, last)}
    found: Weights
    if name == "la":
        found = {(i, i - 1): 1 / last for i in first}
    elif name == "acc":
        found = {(last, i - 1): 1 / last for i in first}
    elif name == "bwt":
        found = ends | {(i, i - 1): -1.0 for i in range(1, last)}
    elif name == "fm":
        best = {(_best_row(a, i), i - 1): 1.0 for i in range(1, last)}
        found = best | {cell: -weight for cell, weight in ends.items()}
    elif name == "fwt":
        found = {(i - 1, i - 1): 1.0 for i in first[1:]} | {(0, i - 1): -1.0 for i in first[1:]}
    else:
        raise ValueError(f"no metric '{name}' of cells")
    if not found or any(a[t][i] is None for t, i in found):
        return None
    if name == "fm" and forgetting(a) is None:
        return None
    return found if name in ("la", "acc") else {cell: w / (last - 1) for cell, w in found.items()}


def _best_row(a: Matrix, task: int) -> int:
    """The first of the best rows since task `task` was learned, the last row not counted."""
    known = [(value, -row) for row in range(task, length(a)) if (value := a[row][task - 1]) is not None]
    return -max(known)[1] if known else task


def text_change(before: Sequence[float | None], after: Sequence[float | None]) -> float | None:
    """Change on the text tasks: mean_j (A[T][j] - A[0][j]), in points; negative is a loss."""
    return average(_less(a, b) for b, a in zip(before, after, strict=True))


def text_retention(before: Sequence[float | None], after: Sequence[float | None]) -> float | None:
    """Retained share of the text scores: mean_j A[T][j] / A[0][j]; None if a base score is 0."""
    if any(b == 0 for b in before):
        return None
    pairs = zip(before, after, strict=True)
    return average(None if a is None or b is None else a / b for b, a in pairs)


def mean_and_sd(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample deviation over runs; no deviation for fewer than two; None if a value is unknown."""
    known = _cells(values)
    if known is None:
        return None, None
    mean = fmean(known)
    if len(known) < 2:
        return mean, None
    return mean, (sum((value - mean) ** 2 for value in known) / (len(known) - 1)) ** 0.5
