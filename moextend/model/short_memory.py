"""Batches that do not fit into the memory of the device: they are computed in parts of half the size."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from moextend.errors import RunFailed

R = TypeVar("R")
T = TypeVar("T")

log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, had no memory for a tensor."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and should_reduce_batch_size(error)
    )


def release() -> None:
    """Frees the memory of an attempt that failed; called after its error is gone, which keeps its tensors."""
    from accelerate.utils.memory import clear_device_cache

    gc.collect()
    clear_device_cache()


def first_line(error: BaseException) -> str:
    """The part of an error of memory that says how much was wanted."""
    text = str(error).strip()
    return " ".join(text.splitlines()[:1])[:200].rstrip(".") or type(error).__name__


class BatchLimit:
    """Largest number of rows that fit into memory, as far as is known."""

    def __init__(self) -> None:
        self.rows: int | None = None
        """None: every batch fitted."""

    def split(self, work: Callable[[Sequence[R]], Sequence[T]], rows: Sequence[R], what: str) -> list[T]:
        """What `work` returns for `rows`, one result a row: in one call if it fits, else in calls with fewer rows.

        A size that did not fit is not tried again. The results of smaller batches are the same up to rounding, as
        padding and the order of sums depend on the size.

        Raises:
            RunFailed: a single row does not fit. `what`: the work, for the message.
        """
        found: list[T] = []
        while len(found) < len(rows):
            left = len(rows) - len(found)
            size = min(left, self.rows or left)
            try:
                found += work(rows[len(found) : len(found) + size])
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                problem = first_line(error)
            release()
            if size == 1:
                raise too_little(what, problem)
            self.rows = (size + 1) // 2
            log.warning("%s: no memory for %d rows at a time; continuing with %d.", what, size, self.rows)
        return found


def too_little(what: str, problem: str) -> RunFailed:
    """Error for a single row that does not fit."""
    return RunFailed(
        f"out of memory with one row at a time ({problem}).",
        where=what,
        hint="Load the base in bfloat16 (dtype: auto), use shorter inputs (fewer examples, smaller images) or answers, "
        "or a device with more memory; other programs may use it, too (nvidia-smi).",
    )


_CURRENT: ContextVar[BatchLimit | None] = ContextVar("limit", default=None)


def current_limit() -> BatchLimit:
    """The limit of the enclosing `noted`; without one a new limit."""
    return _CURRENT.get() or BatchLimit()


@contextmanager
def noted() -> Iterator[BatchLimit]:
    """Context in which all computations share one limit, which it yields."""
    mine = BatchLimit()
    token = _CURRENT.set(mine)
    try:
        yield mine
    finally:
        _CURRENT.reset(token)
