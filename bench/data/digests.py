"""Digests of data, for the keys of results that were computed from it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from moextend.bench.data.open import Items, Opened, SplitName, open_items, open_table
from moextend.bench.data.source import find_source
from moextend.bench.task import TaskSpec
from moextend.data.columns import several
from moextend.data.each import Each
from moextend.data.hub import commit_of
from moextend.data.matching import Matching
from moextend.data.media import MediaRef
from moextend.data.table import ArrowTable, Table
from moextend.errors import InputError
from moextend.util.files import digest, sha256

_SETTLED = 5.0
"""Age in seconds from which size and times identify a file's content.

A newer file could change again within the resolution of the clock."""

PATIENCE = 10.0
"""Seconds that the cache is waited for while another process writes to it, which takes far less."""


def data_digest(
    task: TaskSpec, split: SplitName, workspace: Path, *, instead: Mapping[int, str] | None = None
) -> str:
    """Digest of a split (sixteen hex digits): its files, and the files of media that they name.

    `instead`: index in `media_files` -> digest to take instead of its own.
    """
    opened = open_table(task, split, workspace)
    with FileDigests(workspace / ".cache") as known:
        files = [known.of(path) for path in opened.files]
        media = [
            known.of_medium(ref) for ref in _media_files(opened, open_items(task, split, workspace), task)
        ]
    for index, other in (instead or {}).items():
        if index < len(media):
            media[index] = other
    where = task.data.model_dump(include={"where"}) if task.data else {}  # left out while unset
    return digest({"files": files, "images": media, "part": [opened.part.low, opened.part.high], **where})


def media_files(task: TaskSpec, split: SplitName, workspace: Path) -> Iterator[MediaRef]:
    """Media of a split in files of their own, which may be replaced, row by row; none where Parquet contains them."""
    return _media_files(open_table(task, split, workspace), open_items(task, split, workspace), task)


def hub_revision(task: TaskSpec, workspace: Path) -> str | None:
    """Commit of the opened hub data set of a task; None for other data."""
    if task.data is None:
        return None
    splits: tuple[SplitName, ...] = ("test", "train")  # a task that only aligns may have no test split
    for split in splits:
        with suppress(InputError):  # scoring or training reports this error
            if find_source(task.data, task.folder(), workspace, where="data.path").hub is None:
                return None
            return commit_of(open_table(task, split, workspace).files)
    return None


def _media_files(opened: Opened, items: Items, task: TaskSpec) -> Iterator[MediaRef]:
    return iter(()) if _holds_media(opened, task) else items.media_refs()


def _holds_media(opened: Opened, task: TaskSpec) -> bool:
    """Whether the files of the rows contain all media."""
    table: Table = opened.table
    while isinstance(table, Each | Matching):
        table = table.table
    columns = [
        name for column in task.columns.by_modality.values() for name in several(column, table.columns)
    ]
    return not columns or (isinstance(table, ArrowTable) and all(map(table.holds_bytes, columns)))


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
        stamp = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        found = self._recall(path, stamp)
        if found is None:
            found = sha256(path)[:16]
            if time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED:
                self._new.append((str(path), stamp, found))
        return found

    def of_medium(self, ref: MediaRef) -> str:
        """Digest of the encoded medium (sixteen hex digits). Raises InputError with its row if it is missing."""
        return ref.digest if ref.path is None else self.of(ref.file())

    def _recall(self, path: Path, stamp: str) -> str | None:
        if self._store is None:
            return None
        try:
            row = self._store.execute(
                "SELECT stamp, digest FROM files WHERE path = ?", (str(path),)
            ).fetchone()
        except sqlite3.Error:
            # Locked by a process that is suspended, or damaged: waiting for it at every file would take hours.
            self._store.close()
            self._store = None
            return None
        return str(row[1]) if row is not None and row[0] == stamp else None
