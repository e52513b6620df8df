"""Leases: of several processes, on one host or several, one at a time works on a folder or makes a file.

`lease.acquire_all(paths)` refuses if another process holds one of them; `with lease.first(path)` waits until it is
free, for files that one process makes and the others read.

A lease is a `filelock.SoftFileLease`: a file that exists while it is held, names its holder, and is touched every
`seconds` / 12. It is taken over if the holder's process on this host is gone, or if it was not touched for `seconds`,
by the clocks of this host and of the disk. A process that comes back after that finds that the file is another's:
`check` raises LeaseLost, and so do all writes of moextend.util.files below a guarded folder.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from filelock import LeaseCompromise, LeaseSettingsMismatch, SoftFileLease, Timeout

from moextend.errors import InputError, LeaseLost
from moextend.util import files

VARIABLE = "MOEXTEND_LEASE_SECONDS"
"""Environment variable: seconds without a heartbeat after which another host takes over."""
SECONDS = 60.0
LIMITS = (2.0, 3600.0)
BEATS = 12
"""Heartbeats in that time."""
PAUSE = 0.05
"""Seconds between two looks at a lease that is held."""
TAKEN, REMOVED = "another process took it over", "another process removed it"
LOST = {
    "owner-changed": TAKEN,
    "marker-missing": REMOVED,
    "refresh-failed": "it could not be renewed in time",
}

Life = Literal["alive", "dead", "unknown"]
"""unknown: on another host, or suspended."""


@dataclass(frozen=True)
class Holder:
    """The process that a lease names."""

    host: str
    pid: int
    seconds: float
    """Seconds without a heartbeat after which another process takes over."""
    beat: float
    """Time of the last heartbeat, by the clock of the disk."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def life(self) -> Life:
        """What can be known about the process from here. Containers that share a host name share process ids, too."""
        return life(self.pid) if self.host == socket.gethostname() else "unknown"


def holder_of(path: Path) -> Holder | None:
    """The process in a lease file; None if there is none, or if it is damaged."""
    owner = SoftFileLease(path).owner
    if owner is None or owner.lease_duration is None:
        return None
    with suppress(OSError):
        return Holder(owner.hostname, owner.pid, owner.lease_duration, path.lstat().st_mtime)
    return None


def life(pid: int) -> Life:
    """What a process of this host does."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return "dead"
    except PermissionError:
        pass
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # hidden, or a system without /proc
        return "alive"
    return "dead" if state in "ZX" else "unknown" if state in "Tt" else "alive"


def seconds() -> float:
    """Seconds without a heartbeat after which another host takes over; InputError for a wrong setting."""
    text = os.environ.get(VARIABLE, "")
    try:
        found = float(text or SECONDS)
    except ValueError:
        found = math.nan
    low, high = LIMITS
    if not low <= found <= high:
        raise InputError(
            f"'{text}' is not a number of seconds from {low:g} to {high:g}.",
            where=VARIABLE,
            hint=f"Unset it ({SECONDS:g} seconds), or use the same value on all hosts.",
        )
    return found


class Held(Exception):
    """Another process holds the lease."""

    def __init__(self, path: Path, holder: Holder) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.path, self.holder = path, holder


class Lease:
    """The lease in a file, which `attempt` takes: a context manager, whose end releases it.

    With `interrupt`, a loss interrupts the main thread, if that makes this object.
    """

    def __init__(self, path: Path, *, interrupt: bool = False) -> None:
        self.path = path
        self._interrupts = interrupt and threading.current_thread() is threading.main_thread()
        self._lock = self._of(seconds())
        self._lost: str | None = None
        self._seen: float | None = None

    def _of(self, duration: float) -> SoftFileLease:
        return SoftFileLease(
            self.path, lease_duration=duration, heartbeat_interval=duration / BEATS, on_compromise=self._note_loss,
            thread_local=False,
        )  # fmt: skip

    def attempt(self) -> bool:
        """Takes the lease if it is free; whether this object has it."""
        if not self._lock.is_locked:
            if (holder := holder_of(self.path)) and holder.seconds != self._lock.lease_duration:
                self._lock = self._of(holder.seconds)  # the time of the process that holds it counts
            with files.disk_errors(self.path), suppress(Timeout, LeaseSettingsMismatch):
                self._lock.acquire(blocking=False)
        return self._lock.is_locked

    def refuse_alive(self) -> None:
        """Raises Held if the holder is alive here, or gave a sign of life since the last call."""
        if (holder := holder_of(self.path)) is None:
            return
        if holder.life() == "alive" or self._seen not in (None, holder.beat):
            raise Held(self.path, holder)
        self._seen = holder.beat

    def check(self) -> None:
        """Returns if this process may write; else raises LeaseLost."""
        if not self._lost and not self._lock.is_locked:
            self._lost = "it was released"
        if not self._lost:
            with suppress(OSError):
                # After a suspension the heartbeat may come later than this, and a process that takes over looks again.
                if time.time() - self.path.lstat().st_mtime > self._lock.lease_duration / 3:
                    os.utime(self.path)
            owner = self._lock.owner
            if owner is None or owner.token != self._lock.token:
                self._lost = TAKEN if owner else REMOVED
        if self._lost:
            self._interrupts = False  # the error says it; an interrupt of the heartbeat would hide it
            raise LeaseLost(
                f"the lease of process {os.getpid()} on {socket.gethostname()} is lost: {self._lost}.",
                where=str(self.path.parent),
                hint="The process was suspended, had no CPU time, or its disk did not respond for a long "
                f"time. The same command continues where it stopped; see moextend bench status. {VARIABLE} "
                "sets the duration of a lease.",
            )

    def _note_loss(self, loss: LeaseCompromise) -> None:
        self._lost = self._lost or LOST[loss.reason]
        if self._interrupts:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or self._lost:  # a library may turn the interrupt into an error of its own
                self.check()
        except KeyboardInterrupt:  # of the loss, just now
            self.check()
            raise
        finally:
            self._lock.release()


def acquire_all(
    paths: Sequence[Path],
    *,
    interrupt: bool = True,
    patient: bool = False,
    on_wait: Callable[[], None] | None = None,
) -> list[Lease]:
    """Leases in all files, watched at the same time. Raises Held if a holder is alive, if not `patient`.

    It takes a heartbeat to find out for a process of another host. With `interrupt`, a loss interrupts the main thread.
    """
    leases = [Lease(path, interrupt=interrupt) for path in paths]
    with ExitStack() as undo:
        for lease in leases:
            undo.callback(lease._lock.release)
        while waiting := [lease for lease in leases if not lease.attempt()]:
            for lease in () if patient else waiting:
                lease.refuse_alive()
            time.sleep(PAUSE)
            if on_wait:
                on_wait()
        undo.pop_all()
    return leases


@contextmanager
def first(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[Lease]:
    """Context in which this process alone, of all on all hosts, makes `path`; others wait for it here.

    It waits as long as the holder gives signs of life, so `path` may exist at the beginning of the context. A loss
    neither interrupts the block nor is an error at its end: where it must not happen that two processes make `path`,
    the block calls `check()` of the lease before it writes. A thread that holds the lease and asks for it again waits
    for ever.

    Args:
        path: file or folder to make; need not exist. The lease is a file next to it, `<path>.lease`.
        on_wait: called several times a second while another process has the lease.
    """
    name = path.with_name(f"{path.name}.lease")
    (held,) = acquire_all([name], interrupt=False, patient=True, on_wait=on_wait)
    try:
        yield held
    finally:
        held._lock.release()
