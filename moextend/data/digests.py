"""Digests of files, kept for the next process."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from moextend.data.media import MediaRef
from moextend.util.files import sha256, stamp

_SETTLED = 5.0
"""Age in seconds from which size and times identify a file's content.

A newer file could change again within the resolution of the clock."""

PATIENCE = 10.0
"""Seconds that the cache is waited for while another process writes to it, which takes far less."""


class FileDigests:
    """Digests of files, cached in a folder by path, size and times, so that large files are read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store: sqlite3.Connection | None = None
        self._new: list[tuple[str, str, str]] = []

    def __enter__(self) -> FileDigests:
        # The cache only saves time: without a writable folder every file is read again.
        with suppress(OSError, sqlite3.Error):
            self._folder.mkdir(parents=True, exist_ok=True)
            store = sqlite3.connect(self._folder / "digests.sqlite", timeout=PATIENCE)
            store.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT, digest TEXT)")
            self._store = store
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is None:
            return
        # One transaction at the end, so that no other process waits while files are read.
        with suppress(sqlite3.Error), self._store:
            self._store.executemany("REPLACE INTO files VALUES (?, ?, ?)", self._new)
        self._store.close()
        self._store = None

    def of(self, path: Path) -> str:
        """Digest of the file's content (sixteen hex digits)."""
        path = path.resolve()
        stat = path.stat()
        here = stamp(stat)
        found = self._recall(path, here)
        if found is None:
            found = sha256(path)[:16]
            if time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED:
                self._new.append((str(path), here, found))
        return found

    def of_medium(self, ref: MediaRef) -> str:
        """Digest of the encoded medium (sixteen hex digits). Raises InputError with its row if it is missing."""
        return ref.digest if ref.path is None else self.of(ref.file())

    def _recall(self, path: Path, here: str) -> str | None:
        try:
            row = (
                self._store
                and self._store.execute(
                    "SELECT stamp, digest FROM files WHERE path = ?", (str(path),)
                ).fetchone()
            )
        except sqlite3.Error:  # locked by a process that is suspended, or damaged: waited for once
            self._store = None
            return None
        return str(row[1]) if row and row[0] == here else None
