"""Predictions of the base are made once in a workspace."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.score.shared import SharedPredictions
from moextend.errors import RunFailed
from moextend.util import files

LINES = b'{"id": "1", "prediction": "red"}\n'


def make(share: SharedPredictions, path: Path, text: bytes = LINES) -> bool:
    """Makes a file of predictions if it is not there; whether it had to be computed."""
    with share(path):
        if path.exists():
            return False
        files.write_bytes(path, text)
        return True


def test_the_second_run_copies_what_the_first_made(tmp_path: Path) -> None:
    share = SharedPredictions(tmp_path / "cache")
    first, second = tmp_path / "a" / "task-1.jsonl", tmp_path / "b" / "task-1.jsonl"
    first.parent.mkdir()
    assert make(share, first) and not make(share, second)
    assert second.read_bytes() == LINES
    second.write_bytes(b"")  # a run's own file is a copy
    assert first.read_bytes() == LINES and not make(share, tmp_path / "c" / "task-1.jsonl")


@pytest.mark.parametrize("damage", [b"", LINES.replace(b"red", b"bed"), b"\xff"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes) -> None:
    share = SharedPredictions(tmp_path / "cache")
    runs = [tmp_path / name / "task-1.jsonl" for name in "abc"]
    for path in runs:
        path.parent.mkdir()
    make(share, runs[0])
    (tmp_path / "cache" / "task-1.jsonl").write_bytes(damage)
    assert make(share, runs[1]), "not the damaged one"
    assert not make(share, runs[2]) and runs[2].read_bytes() == LINES


def test_what_failed_is_not_kept(tmp_path: Path) -> None:
    share, path = SharedPredictions(tmp_path / "cache"), tmp_path / "task-1.jsonl"

    with pytest.raises(RunFailed), share(path):
        path.write_bytes(LINES[:5])
        raise RunFailed("stopped")
    (tmp_path / "other").mkdir()
    assert make(share, tmp_path / "other" / "task-1.jsonl")


def test_a_process_waits_for_another_one(tmp_path: Path) -> None:
    share, made = SharedPredictions(tmp_path / "cache"), list[bool]()
    runs = [tmp_path / name / "task-1.jsonl" for name in "ab"]
    for path in runs:
        path.parent.mkdir()

    def slow() -> None:
        with share(runs[0]):
            time.sleep(0.3)
            files.write_bytes(runs[0], LINES)

    worker = threading.Thread(target=slow)
    worker.start()
    time.sleep(0.1)
    made.append(make(share, runs[1]))
    worker.join()
    assert made == [False] and runs[1].read_bytes() == LINES


def test_a_full_disk_of_the_cache_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share, path = SharedPredictions(tmp_path / "cache"), tmp_path / "task-1.jsonl"

    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("moextend.util.files.write_json", full)
    assert make(share, path) and path.read_bytes() == LINES
