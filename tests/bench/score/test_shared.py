"""Predictions of the same weights are made once in a workspace."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from moextend.bench.score.shared import SharedPredictions
from moextend.bench.store import Store
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


@pytest.fixture
def share(tmp_path: Path) -> SharedPredictions:
    return SharedPredictions(Store(tmp_path / "cache"), "weights", "the base")


def node(share: SharedPredictions) -> Path:
    (found,) = share.store.folder.glob("predictions/*/")
    return found


def test_the_second_run_copies_what_the_first_made(tmp_path: Path, share: SharedPredictions) -> None:
    first, second = tmp_path / "a" / "task-1.jsonl", tmp_path / "b" / "task-1.jsonl"
    first.parent.mkdir()
    assert make(share, first) and not make(share, second)
    assert second.read_bytes() == LINES
    second.write_bytes(b"")  # a run's own file is a copy
    assert first.read_bytes() == LINES and not make(share, tmp_path / "c" / "task-1.jsonl")
    card = share.store.node("predictions", node(share).name).card()
    assert card and card.about == "the base: task"


@pytest.mark.parametrize(
    ("name", "damage"), [("task-1.jsonl", LINES.replace(b"red", b"bed")), ("card.json", b"")]
)
def test_a_damaged_file_is_made_again(
    tmp_path: Path, share: SharedPredictions, damage: bytes, name: str
) -> None:
    runs = [tmp_path / name / "task-1.jsonl" for name in "abc"]
    make(share, runs[0])
    (node(share) / name).unlink()
    (node(share) / name).write_bytes(damage)
    assert make(share, runs[1]), "not the damaged one"
    assert not make(share, runs[2]) and runs[2].read_bytes() == LINES


def test_what_failed_is_not_kept(tmp_path: Path, share: SharedPredictions) -> None:
    path = tmp_path / "task-1.jsonl"

    with pytest.raises(RunFailed), share(path):
        path.write_bytes(LINES[:5])
        raise RunFailed("stopped")
    assert make(share, tmp_path / "other" / "task-1.jsonl")


def test_a_process_waits_for_another_one(tmp_path: Path, share: SharedPredictions) -> None:
    waited = list[int]()
    other = SharedPredictions(share.store, share.key, on_wait=lambda: waited.append(1))
    runs, made = [tmp_path / name / "task-1.jsonl" for name in "ab"], list[bool]()

    def slow() -> None:
        with share(runs[0]):
            time.sleep(0.5)
            files.write_bytes(runs[0], LINES)

    worker = threading.Thread(target=slow)
    worker.start()
    time.sleep(0.1)
    made.append(make(other, runs[1]))
    worker.join()
    assert made == [False] and runs[1].read_bytes() == LINES and waited
