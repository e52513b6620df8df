"""The cache of the digests of files saves time; a process that holds it up costs little."""

import os
import sqlite3
from pathlib import Path

import pytest

from moextend.data import digests
from moextend.data.digests import FileDigests
from moextend.util.files import sha256


def old_files(folder: Path, count: int) -> list[Path]:
    """Files that are old enough for the cache."""
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
        os.utime(path, (1, 1))
    return paths


def test_a_cache_that_a_suspended_process_locks_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "PATIENCE", 0.5)
    paths = old_files(tmp_path, 20)
    with FileDigests(tmp_path / "cache"):
        pass
    other = sqlite3.connect(tmp_path / "cache" / "digests.sqlite")
    other.execute("BEGIN EXCLUSIVE")
    with FileDigests(tmp_path / "cache") as found:
        assert [found.of(path) for path in paths] == [sha256(path)[:16] for path in paths]
        assert found._store is None, "it waits once, not for every file"
    other.close()
