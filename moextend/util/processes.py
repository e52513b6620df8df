"""Data-parallel processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def first_writes() -> Iterator[bool]:
    """Context that yields whether this process is the first one; all processes leave it together."""
    import torch

    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    yield not together or torch.distributed.get_rank() == 0
    if together:
        torch.distributed.barrier()
