"""Checks of a sequence on this machine; tests/cli/test_preflight.py tests refused inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.bench.run import preflight
from moextend.errors import InputError
from moextend.util import files


def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "new" / "below", where="--out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is not a folder"):
            files.check_writable(path, where="--out")


def test_data_that_is_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moextend.bench.task import TaskSpec

    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 4)
    data = {"path": "rows.jsonl", "train": None, "test": "all"}
    record = {"task": "rows", "version": 1, "kind": "vqa", "data": data, "columns": {"image": "photo"}}
    task = TaskSpec(**record, path=tmp_path / "rows.yaml")
    with pytest.raises(InputError, match="no column 'photo'"):
        preflight._check_data(task, "test", tmp_path)
    monkeypatch.setattr(preflight, "SMALL", 10)
    preflight._check_data(task, "test", tmp_path)
