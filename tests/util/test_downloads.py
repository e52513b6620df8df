"""Files of the hub's cache are read once, damaged ones and leftovers are removed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from moextend.util import downloads, files


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit in a cache as huggingface_hub lays it out: two large files and a small one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    repository = tmp_path / "models--org--base"
    commit = repository / "snapshots" / ("a" * 40)
    for path in (repository / "blobs", commit / "part"):
        path.mkdir(parents=True)
    for name, content in {
        "one.safetensors": b"1",
        "part/two.safetensors": b"2",
        "config.json": b"{}",
    }.items():
        kind = hashlib.sha256 if name.endswith(".safetensors") else hashlib.sha1
        blob = repository / "blobs" / kind(content).hexdigest()
        blob.write_bytes(content)
        (commit / name).symlink_to(blob)
    return commit


def test_a_damaged_file_is_removed_with_its_blob(snapshot: Path) -> None:
    assert downloads.remove_damaged(snapshot) == []
    two = snapshot / "part/two.safetensors"
    blob = two.resolve()
    blob.write_bytes(b"3")
    os.utime(blob, (0, 0))
    assert downloads.remove_damaged(snapshot) == ["part/two.safetensors"]
    assert not two.is_symlink() and not blob.exists()
    assert (snapshot / "one.safetensors").read_bytes() == b"1"
    assert downloads.remove_damaged(snapshot) == []


def test_a_file_is_read_once(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    own = files.sha256

    def counted(path: Path) -> str:
        read.append(path.name)
        return own(path)

    monkeypatch.setattr(files, "sha256", counted)
    for _ in range(3):
        assert downloads.remove_damaged(snapshot) == []
    assert len(read) == 2
    os.utime((snapshot / "one.safetensors").resolve(), (0, 0))
    assert downloads.remove_damaged(snapshot) == [] and len(read) == 3


def test_where_no_note_can_be_kept_the_files_are_read_again(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert downloads.remove_damaged(snapshot) == downloads.remove_damaged(snapshot) == []


def test_only_old_leftovers_are_removed(snapshot: Path) -> None:
    blobs = snapshot.parents[1] / "blobs"
    old, new = blobs / "a.1234.incomplete", blobs / "b.1234.incomplete"
    for path in (old, new):
        path.write_bytes(b"part")
    os.utime(old, (0, time.time() - downloads.STALE - 60))
    downloads.remove_stale(snapshot.parents[1])
    assert not old.exists() and new.exists() and len(list(blobs.iterdir())) == 4
    downloads.remove_stale(snapshot.parents[1] / "missing")
