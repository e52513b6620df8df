"""`cancel.json`: a request to stop a run, which its worker finds on whatever machine it runs.

Whoever starts a run removes an earlier request first. So a worker that finds one at its start was queued before the
request, and stops at once.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moextend.util import files
from moextend.util.spec import Record

CANCEL = "cancel.json"
CANCELLED = "cancelled"
"""State for people of a run that stopped, or did not begin, because of a request."""
EVERY = 2.0
"""Seconds between two looks of a worker."""
EXECUTOR = "MOEXTEND_EXECUTOR"
"""Environment variable with the name of the executor that started a worker; none for one that was started by hand."""


class Cancel(Record):
    """`cancel.json`: a request to stop the run cleanly. The next start of the run removes it."""

    at: float
    """Time of the request, in seconds since 1970."""
    host: str = ""
    """Machine on which it was made."""
    pid: int | None = None
    """Process that made it. null: not known."""


def cancel(run: Path) -> None:
    """Requests that the worker of a run stops."""
    Cancel(at=time.time(), host=socket.gethostname(), pid=os.getpid()).write(run / CANCEL)


def cancelled(run: Path) -> bool:
    """Whether there is a request, also one that cannot be read."""
    return files.exists(run / CANCEL)


def forget(run: Path) -> None:
    """Removes the request."""
    (run / CANCEL).unlink(missing_ok=True)


@contextmanager
def heeding(run: Path, stop: Callable[[], None]) -> Iterator[None]:
    """Context in which a thread calls `stop` once, soon after a request appears.

    A request that is there already counts only for a worker of an executor: by hand, a run starts nevertheless.

    Raises:
        KeyboardInterrupt: the run was cancelled before it started.
    """
    if cancelled(run):
        if EXECUTOR in os.environ:
            raise KeyboardInterrupt
        forget(run)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY):
            if cancelled(run):
                stop()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
