"""Several processes that train together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def first_writes() -> Iterator[bool]:
    """Says whether this process is the first of those that train together; all of them leave when it is done."""
    import torch

    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    yield not together or torch.distributed.get_rank() == 0
    if together:
        torch.distributed.barrier()
