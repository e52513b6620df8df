"""Whether the process that a status names still works: by the lease of the run, without waiting for a heartbeat."""

from __future__ import annotations

import time
from pathlib import Path

from moextend.bench.run.records import Status
from moextend.util import lease

LEASE = ".lease"
"""Name of the lease in the folder of a run."""


def is_held(folder: Path) -> bool:
    """Whether a process that may be alive holds the lease of a run."""
    holder = lease.holder_of(folder / LEASE)
    return holder is not None and holder.life() != "dead"


def judged(folder: Path, status: Status) -> Status:
    """A status "running" as it is: running, lost or interrupted, with the process that holds the run.

    lost: the heartbeat stopped, and the process is on another host, or suspended.
    """
    holder = lease.holder_of(folder / LEASE)
    life = holder.life() if holder else "dead"
    if holder is None or life == "dead":
        return status.model_copy(update={"state": "interrupted", "phase": None, "left": None})
    beat = max(holder.beat, status.heartbeat or 0.0)
    status = status.model_copy(update={"pid": holder.pid, "host": holder.host, "heartbeat": beat})
    if life == "unknown" and time.time() - beat > holder.seconds:
        return status.model_copy(update={"state": "lost", "phase": None, "left": None})
    return status
