"""flock(2) on a file: excludes processes of this kernel, also those of releases without leases."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moextend.errors import InputError
from moextend.util import files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PAUSE = 0.05
"""Seconds between two attempts of `waited`."""


class LocalLock:
    """A lock that the kernel frees when the process ends. On a file system without locks it is always free.

    A process of a release without leases names itself in the file `owner`. If that is missing, the lock is held by one
    with a lease, which decides: it may be suspended, or its host lost.
    """

    def __init__(self, path: Path, owner: Path | None = None) -> None:
        self.path, self.owner, self._fd = path, owner, -1

    def has_owner(self) -> bool:
        """Whether a process of a release without leases named itself."""
        return self.owner is not None and self.owner.exists()

    def acquire(self) -> bool:
        """Takes the lock if it is free, without waiting; True also if this object holds it already."""
        if self._fd >= 0 or fcntl is None:
            return True
        if self.path.is_dir():
            raise InputError("is a folder, and should be a file.", where=str(self.path), hint="Move it away.")
        with files.disk_errors(self.path):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:  # NFS without a lock daemon, FUSE
            os.close(fd)
            return True
        self._fd = fd
        return True

    @contextmanager
    def waited(self) -> Iterator[None]:
        """Context with the lock, for which it waits."""
        while not self.acquire():
            time.sleep(PAUSE)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Frees the lock; the file stays, since another process may wait for it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
