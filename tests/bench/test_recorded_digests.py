"""Runs, predictions and data keep their digests, so that results on disk stay valid after an update."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.data import data_digest
from moextend.bench.run.plan import Request, resolve
from moextend.bench.score.vqa import prediction_key
from moextend.bench.sequence import Scoring
from moextend.bench.task import read_task
from moextend.util import content
from tests.bench.data.conftest import MakeTask, make_task, workspace

__all__ = ["make_task", "workspace"]

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "digests.json").read_text(encoding="utf-8")
)
"""Digests by an earlier release: of the first method of sequences, and of the predictions of tasks.

A new version of a sequence or a task, and new default settings, have new ones; nothing else has.
"""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ROWS = [
    {"qid": "a", "picture": "a.png", "ask": "what", "reply": "red", "sort": "x"},
    {"qid": "b", "picture": "b.png", "ask": "why", "reply": "blue", "sort": "y"},
]


@pytest.mark.parametrize("name", RECORDED["runs"])
def test_runs_of_a_sequence_keep_their_digest(name: str, tmp_path: Path) -> None:
    assert resolve(Request(tmp_path, sequence=name))[0].digest == RECORDED["runs"][name]


def test_predictions_of_tasks_keep_their_keys() -> None:
    folder = content.package_folder("tasks")
    found = {
        name: prediction_key(read_task(folder / f"{name}.yaml"), "d", Scoring(), tokenizer="t", dtype="f")
        for name in RECORDED["predictions"]
    }
    assert found == RECORDED["predictions"]


def test_data_with_images_keep_their_digest(tmp_path: Path, make_task: MakeTask, workspace: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(PNG)
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert data_digest(make_task(path, train=None, test="all"), "test", workspace) == RECORDED["data"]
