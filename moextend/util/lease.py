"""Leases: of several processes, on one host or several, one at a time works on a folder or makes a file.

`lease.acquire_all(names)` refuses if another process holds one of them; `with lease.first(path)` waits until it is
free, for files that one process makes and the others read.

The lease with the highest number n of the files `<name>-<n>` counts. Its holder rewrites it every `seconds` / 12 with a
counter. Another process takes over by making the file n + 1, which succeeds for one process only, if

- the holder has released it,
- the holder is certainly dead (its process on this kernel and PID namespace is gone, or this machine was rebooted), or
- the counter did not change for `seconds`, by the clock of the process that watches.

A holder that could not renew its lease for two thirds of that time gives it up by itself. The rest of the time is for a
write that is under way. It goes on if it can make the file n + 1: then nobody held the lease in between. Else `check`
raises LeaseLost, and so do all writes of moextend.util.files below `folder`.
"""

from __future__ import annotations

import errno
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from moextend.errors import LeaseLost, MoextendError
from moextend.util import files, lease_files
from moextend.util.holder import SECONDS, VARIABLE, Holder, seconds
from moextend.util.lease_files import SIZE, Disk, newest, path_of
from moextend.util.local_lock import LocalLock

log = logging.getLogger(__name__)

BEATS = 12
"""Heartbeats in that time."""
HOLD = 2 / 3
"""Part of that time after which a holder that could not renew its lease gives it up."""
FIRST_WAIT, LONGEST_WAIT = 0.02, 0.25
"""Seconds between two looks at a lease that is held."""
MIXED = 2.0
"""Seconds that a local lock without a lease is waited for: a process that begins names itself, or makes its lease."""


class Held(Exception):
    """Another process holds the lease; `holder` is None if it is of a release without leases."""

    def __init__(self, name: Path, holder: Holder | None) -> None:
        super().__init__(f"{name} is held by {holder or 'another process'}")
        self.name, self.holder = name, holder


class Lease:
    """A lease that this process holds: a context manager, whose end releases it."""

    def __init__(self, claim: Claim, number: int, holder: Holder, until: float, fd: int) -> None:
        self.name, self.holder = claim.name, holder
        self._claim, self._disk, self._local = claim, claim.disk, claim.local
        self._number, self._until, self._fd = number, until, fd
        self._lost: str | None = None
        self._ended, self._busy = threading.Event(), threading.RLock()
        self._main = False

    @property
    def path(self) -> Path:
        """The lease file."""
        return path_of(self.name, self._number)

    def check(self) -> None:
        """Returns if this process may write; else raises LeaseLost. Takes two looks at the disk."""
        with self._busy:
            if self._ended.is_set():
                self._lost = self._lost or "it was released"
            if not self._lost:
                with suppress(OSError):  # the time decides while the disk does not answer
                    self._look()
            while not self._lost and self._late():  # last: a look may take long, and so may the next lease
                self._succeed()
        if self._lost:
            raise LeaseLost(
                f"the lease of process {self.holder.pid} on {self.holder.host} is lost: {self._lost}.",
                where=str(self.name.parent),
                hint="The process was suspended, had no CPU time, or its disk did not respond for a long "
                f"time. The same command continues where it stopped; see moextend bench status. {VARIABLE} "
                "sets the duration of a lease.",
            )

    def renew(self) -> None:
        """A heartbeat. The time counts from before the write."""
        began = self._disk.clock()
        if self._lost:
            return
        if self._late():
            self._succeed()
            return
        self.holder = self.holder.model_copy(update={"beat": self.holder.beat + 1})
        try:
            self._disk.rewrite(self._fd, _encoded(self.holder))
            self._look()
        except OSError as error:
            if error.errno == errno.ESTALE:
                self._lost = "another process removed it"
            return  # else the next beat may succeed
        if not self._late():
            self._until = began + HOLD * self.holder.seconds
        elif not self._lost:
            self._succeed()

    def _late(self) -> bool:
        return self._disk.clock() > self._until

    def _succeed(self) -> None:
        """Makes this process the next holder, if no other process was that; else the lease is lost."""
        with suppress(OSError):
            if later := self._claim.after(self._number):
                self._disk.close(self._fd)
                self._number, self._until, self._fd = later._number, later._until, later._fd
                return
        self._lost = "it could not be renewed in time"

    def _look(self) -> None:
        if self._disk.exists(path_of(self.name, self._number + 1)):
            self._lost = "another process took it over"
        elif not self._disk.same(self._fd, self.path):
            self._lost = "another process removed it"

    def start(self, *, interrupt: bool = False) -> Self:
        """Starts the heartbeats; with `interrupt`, a loss interrupts the main thread, if this is the main thread."""
        self._main = interrupt and threading.current_thread() is threading.main_thread()
        threading.Thread(target=self._beat, name=f"lease {self.name}", daemon=True).start()
        return self

    def _beat(self) -> None:
        while not self._ended.wait(self.holder.seconds / BEATS):
            with self._busy:
                if self._ended.is_set():
                    return
                self.renew()
                if self._local:
                    with suppress(MoextendError, OSError):  # the lease decides, and its heartbeat goes on
                        self._local.acquire()
                if self._lost:
                    if self._main:
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return

    def release(self) -> None:
        """Frees the lease for others; one that is lost is left alone."""
        with self._busy:
            if self._ended.is_set():
                return
            with suppress(MoextendError, OSError):
                self.check()
                freed = self.holder.model_copy(update={"released": True})
                self._disk.rewrite(self._fd, _encoded(freed), synced=False)
            self._ended.set()
            self._disk.close(self._fd)
            if self._local:
                self._local.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or (self._lost and isinstance(error, KeyboardInterrupt)):
                self.check()
        except KeyboardInterrupt:  # of the loss, just now
            self.check()
            raise
        finally:
            self.release()


class Claim:
    """The wish for a lease. `attempt` never waits long, so that several are waited for at once."""

    def __init__(self, name: Path, *, local: LocalLock | None = None, disk: Disk | None = None) -> None:
        self.name, self.local, self.disk = name, local, disk or lease_files.DISK
        self.me = Holder.here(seconds())
        self._seen: tuple[int, bytes] | None = None
        self._since = self._began = self.disk.clock()
        self.holder: Holder | None = None
        """The holder that was seen last."""
        self.moved = False
        """Whether that one gave a sign of life: it is alive here, or its counter changed."""
        self._blocked: float | None = None
        """When the local lock was first held by a process without a lease."""

    def refusal(self) -> Held | None:
        """The error if another process certainly holds the lease."""
        if self.moved:
            return Held(self.name, self.holder)
        return Held(self.name, None) if self._late() and self.local and self.local.has_owner() else None

    def _late(self) -> bool:
        return self._blocked is not None and self.disk.clock() - self._blocked > MIXED

    def attempt(self) -> Lease | None:
        """Takes the lease if it is free."""
        number, content = newest(self.name, self.disk)
        free = not number or self._free(number, content)
        return self._take(number, content) if free and self._locked() else None

    def after(self, number: int) -> Lease | None:
        """The lease that follows one of this process."""
        content = self.disk.read(path_of(self.name, number))
        return None if content is None else self._take(number, content)

    def _free(self, number: int, content: bytes) -> bool:
        now = self.disk.clock()
        self.holder = parsed(content)
        if self.holder and self.holder.released:
            return True
        life = self.holder.life() if self.holder else "unknown"
        before, self._seen = self._seen, (number, content)
        if before != self._seen:
            self._since = now
        self.moved = life == "alive" or self.moved or (before is not None and before != self._seen)
        return life == "dead" or now - self._since > (self.holder.seconds if self.holder else SECONDS)

    def _locked(self) -> bool:
        """Whether no process without a lease, of an earlier release, works on the same host."""
        if self.local is None or self.local.acquire():
            return True
        if self._blocked is None:
            self._blocked = self.disk.clock()
        return self._late() and not self.local.has_owner()

    def _take(self, number: int, content: bytes) -> Lease | None:
        began, path = self.disk.clock(), path_of(self.name, number + 1)
        mine = _encoded(self.me)
        if self.disk.create(path, mine) and (fd := self._opened(path)) is not None:
            if self._confirmed(number, content) and self.disk.same(fd, path):
                for old in self.disk.numbers(self.name) if number else ():
                    if old <= number:
                        self.disk.remove(path_of(self.name, old))
                return Lease(self, number + 1, self.me, began + HOLD * self.me.seconds, fd)
            self.disk.close(fd)
            if self.disk.read(path) == mine:
                self.disk.remove(path)
        if self.local:
            self.local.release()
        return None

    def _opened(self, path: Path) -> int | None:
        with suppress(FileNotFoundError):
            return self.disk.open(path)
        return None

    def _confirmed(self, number: int, content: bytes) -> bool:
        """Whether the former holder gave no sign of life meanwhile, and no later lease was made."""
        if number and self.disk.read(path_of(self.name, number)) != content:
            return False
        return newest(self.name, self.disk)[0] == number + 1


def acquire_all(names: Sequence[Path], locks: Sequence[LocalLock]) -> list[Lease]:
    """Leases on all names, watched at the same time; their heartbeats run, and a loss interrupts the main thread.

    Args:
        locks: for each name the lock of releases without leases.

    Raises:
        Held: a holder is alive; it takes a heartbeat to find out for a process of another host.
    """
    claims = [Claim(name, local=lock) for name, lock in zip(names, locks, strict=True)]
    return _acquired(claims, interrupt=True)


def _acquired(
    claims: Sequence[Claim],
    *,
    interrupt: bool = False,
    patient: bool = False,
    on_wait: Callable[[], None] | None = None,
) -> list[Lease]:
    """The claimed leases; Held for one with a holder that is alive, if not `patient`."""
    taken: dict[Path, Lease] = {}
    with ExitStack() as undo:
        pause = FIRST_WAIT
        while left := [claim for claim in claims if claim.name not in taken]:
            for claim in left:
                if lease := claim.attempt():
                    taken[claim.name] = undo.enter_context(lease.start(interrupt=interrupt))
                elif not patient and (refusal := claim.refusal()):
                    raise refusal
            if len(taken) < len(claims):
                left[0].disk.sleep(pause)
                pause = min(2 * pause, LONGEST_WAIT)
                if on_wait:
                    on_wait()
        undo.pop_all()
    return [taken[claim.name] for claim in claims]


@contextmanager
def first(
    path: Path, *, lock: Path | None = None, patient: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[Lease]:
    """Context in which this process alone, of all on all hosts, makes `path`; others wait for it here.

    It waits as long as the holder gives signs of life, so `path` may exist at the beginning of the context. A loss
    neither interrupts the block nor is an error at its end: where it must not happen that two processes make `path`,
    the block calls `check()` of the lease before it writes. A thread that holds the lease and asks for it again waits
    for ever.

    Args:
        path: file or folder to make; need not exist. The lease is a file next to it, `<path>.lease-<n>`.
        lock: file of the lock by which processes of releases without leases exclude each other.
        patient: False: Held for a holder that is alive; it takes a heartbeat to find out for one of another host.
        on_wait: called several times a second while another process has the lease.
    """
    with files.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f"{path.name}.lease")
    claim = Claim(name, local=LocalLock(lock) if lock else None)
    (held,) = _acquired([claim], patient=patient, on_wait=on_wait)
    try:
        yield held
    finally:
        held.release()


def parsed(content: bytes) -> Holder | None:
    """The holder in a lease file; None if it is damaged."""
    with suppress(ValueError, RecursionError, MoextendError):
        return Holder.parse(json.loads(content), where="")
    return None


def _encoded(holder: Holder) -> bytes:
    # Of one length, and with what changes at the end: whatever part of a rewrite is seen names the same process.
    return json.dumps(holder.model_dump()).encode().ljust(SIZE - 1) + b"\n"
