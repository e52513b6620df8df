"""Memory of the device: most rows of a forward pass, a setting of the process, and the error where they do not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from moextend.errors import InputError

VARIABLE = "MOEXTEND_MICRO_BATCH"
"""Environment variable: most rows (conversations, prompts) of a forward pass in a process. It is no part of a run."""
_ONE = (
    "Set gradient_checkpointing: true for a training; load the base in bfloat16 (dtype: auto), use shorter inputs, "
    "or a device with more memory (docs/gpu.md)."
)


def most_rows() -> int | None:
    """The value of `VARIABLE`; None if it is not set. Raises InputError if it is not a number from 1."""
    text = os.environ.get(VARIABLE, "")
    if text and (not text.isdecimal() or int(text) < 1):
        raise InputError(f"'{text}' is not a number from 1.", where=VARIABLE, hint="Unset or correct it.")
    return int(text) if text else None


def fitted(rows: int) -> int:
    """Rows of a forward pass of which `rows` are wanted."""
    return min(rows, most_rows() or rows)


@contextmanager
def enough(rows: int, where: str) -> Iterator[None]:
    """Context in which passes of so many rows that do not fit into the memory are an InputError with a way out."""
    try:
        yield
    except RuntimeError as error:
        from accelerate.utils.memory import should_reduce_batch_size

        if not should_reduce_batch_size(error):
            raise
        first = " ".join(str(error).strip().splitlines()[:1])[:200].rstrip(".") or type(error).__name__
        raise InputError(
            f"out of memory with {rows} rows in a forward pass ({first}).",
            where=where,
            hint=_ONE
            if rows == 1
            else f"Set {VARIABLE}={rows // 2}, and run the same command again: it continues.",
        ) from error
