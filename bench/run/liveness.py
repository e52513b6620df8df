"""Whether the process that a status names still works: by the lease of the run, without waiting for a heartbeat."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from moextend.bench.run.records import State, Status
from moextend.util import lease, lease_files
from moextend.util.holder import Holder, born, exists

LEASE = ".lease"
"""Name of the lease in the folder of a run; its files are `.lease-<n>`."""
LOCK = ".lock"
"""File that processes of releases without leases lock."""
STALE = 600.0
"""Seconds without a heartbeat after which a process without a lease, on another host, counts as dead."""


def holder_of(folder: Path) -> tuple[Holder, float] | None:
    """Process that holds the lease of a run, and the time of its last heartbeat by the clock of the disk.

    None if nobody holds it.
    """
    number, content = lease_files.newest(folder / LEASE)
    holder = lease.parsed(content) if number else None
    if holder is None or holder.released:
        return None
    try:
        return holder, (folder / f"{LEASE}-{number}").stat().st_mtime
    except OSError:  # taken over meanwhile
        return holder, time.time()


def is_held(folder: Path) -> bool:
    """Whether a process that may be alive holds the lease of a run."""
    held = holder_of(folder)
    return held is not None and held[0].life() != "dead"


def judged(folder: Path, status: Status) -> Status:
    """A status "running" as it is: running, lost or interrupted, with the process that holds the run.

    lost: the heartbeat stopped, and the process is on another host, or suspended.
    """
    held = holder_of(folder)
    if held is None:
        return status if _alive(status) else _as("interrupted", status)
    holder, beat = held
    beat = max(beat, status.heartbeat or 0.0)
    place = {"pid": holder.pid, "host": holder.host, "born": holder.born, "heartbeat": beat}
    life = holder.life()
    if life == "dead":
        return _as("interrupted", status)
    if life != "alive" and time.time() - beat > holder.seconds:
        return _as("lost", status.model_copy(update=place))
    return status.model_copy(update=place)


def _as(state: State, status: Status) -> Status:
    return status.model_copy(update={"state": state, "phase": None, "left": None})


def _alive(status: Status) -> bool:
    """Whether a process without a lease works."""
    if status.host == socket.gethostname() and status.pid:
        start = born(status.pid)
        if start is not None or Path("/proc/self/stat").exists():
            return start is not None and start == status.born
        return exists(status.pid)
    return status.heartbeat is not None and time.time() - status.heartbeat < STALE
