"""The files of leases: numbered, made exclusively, rewritten in place.

What several hosts may do at once relies on exclusive creation alone: a lease is taken over by making the file with the
next number, which one process manages. Nothing is renamed, and nobody writes to a file that may be another's.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import uuid
from contextlib import suppress
from pathlib import Path

from moextend.util import files

SIZE = 1024
"""Bytes of a lease file. Every heartbeat writes all of them at once."""
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Numbers of the errors of file systems without hard links."""


class Disk:
    """Operations on lease files. Tests replace them by those of a disk with delays and stale reads."""

    def clock(self) -> float:
        """Seconds that also pass while the machine is suspended; those of other hosts differ."""
        boottime = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if boottime is None else time.clock_gettime(boottime)

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)

    def numbers(self, name: Path) -> list[int]:
        """Numbers of the lease files `<name>-<n>`."""
        with files.disk_errors(name.parent):
            try:
                found = os.listdir(name.parent)  # noqa: PTH208
            except FileNotFoundError:
                return []
        # Most entries are those of other leases: a store has tens of thousands.
        start = f"{name.name}-"
        ends = [entry.removeprefix(start) for entry in found if entry.startswith(start)]
        return [int(end) for end in ends if re.fullmatch("[0-9]{1,18}", end)]

    def read(self, path: Path) -> bytes | None:
        """Content of a lease file; None without one, b"" for what is no regular file."""
        # Opened each time: NFS shows a file as it was when the last writer synced it.
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if path.is_symlink() or path.is_socket():  # a link to nothing or to itself
                return b""
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return None
            with files.disk_errors(path):
                raise
        try:
            return os.read(fd, 4 * SIZE) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        except OSError as error:
            if error.errno == errno.ESTALE:
                return None
            raise
        finally:
            os.close(fd)

    def exists(self, path: Path) -> bool:
        """Whether there is a lease file."""
        try:
            path.lstat()
        except FileNotFoundError:
            return False
        return True

    def create(self, path: Path, content: bytes) -> bool:
        """Makes a lease file with its content; False if it exists. Of several processes one succeeds."""
        # link(2) is atomic also in NFS 2 and 3, and the file is never seen without its content.
        temporary = path.with_name(f".{path.name.lstrip('.')}.{uuid.uuid4().hex[:12]}")
        try:
            with files.disk_errors(path), suppress(FileExistsError):
                self._write_new(temporary, content)
                self._link(temporary, path, content)
        finally:
            with suppress(OSError):
                temporary.unlink()
        # Not by the result of link: a server that repeats a lost answer reports an error for what it has done.
        return self.read(path) == content

    def _link(self, temporary: Path, path: Path, content: bytes) -> None:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self._write_new(path, content)

    def _write_new(self, path: Path, content: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)  # NFS sends it to the server

    def open(self, path: Path) -> int:
        """Opens a lease file of this process for `rewrite`; FileNotFoundError if it is gone."""
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Closes it."""
        os.close(fd)

    def rewrite(self, fd: int, content: bytes, *, synced: bool = True) -> None:
        """Replaces the content of the opened file, also if it has no name any more.

        It is sent to the server now if `synced`, else at `close`.
        """
        os.pwrite(fd, content, 0)
        if synced:
            os.fsync(fd)

    def same(self, fd: int, path: Path) -> bool:
        """Whether the opened file still has its name."""
        try:
            return os.path.samestat(os.fstat(fd), path.lstat())
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ESTALE:
                return False
            raise

    def remove(self, path: Path) -> None:
        """Removes a lease file that is out of use."""
        with suppress(OSError):
            path.unlink()


DISK = Disk()


def newest(name: Path, disk: Disk | None = None) -> tuple[int, bytes]:
    """Number and content of the lease that counts; 0 if there is none."""
    disk = disk or DISK
    number, content = 0, b""
    for listed in sorted(disk.numbers(name), reverse=True):
        if (read := disk.read(path_of(name, listed))) is not None:  # else removed meanwhile
            number, content = listed, read
            break
    while (later := disk.read(path_of(name, number + 1))) is not None:  # the list may be old on NFS
        number, content = number + 1, later
    return number, content


def path_of(name: Path, number: int) -> Path:
    """File of the lease with this number."""
    return name.with_name(f"{name.name}-{number}")
