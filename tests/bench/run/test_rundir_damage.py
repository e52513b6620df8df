"""Incomplete, damaged or missing files of a run, and full disks: little is lost, and errors name the file."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.rundir import Cell, RunDir
from moextend.errors import InputError, RunFailed, SpecError
from moextend.util import files
from tests.bench.conftest import MakeRun


def test_a_torn_last_line_is_left_out_and_cut_by_the_next_append(make_run: MakeRun) -> None:
    run = make_run(rows=[[1.0, 2.0]])
    path = run.folder / "scores.jsonl"
    with path.open("a") as file:
        file.write('{"stage": 1, "task": "col')
    assert len(run.cells()) == 2
    with run.lock():
        assert path.read_text().endswith('"task": "col')
        run.append_cell(Cell(stage=1, task="colour", value=3.0))
    assert len(run.cells()) == 3
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "what"),
    [("{nonsense", "not valid JSON"), ('{"stage": 1}', "not a scored cell"), ("[1]", "not a scored cell")],
)
def test_a_broken_line_is_named(make_run: MakeRun, line: str, what: str) -> None:
    run = make_run(rows=[[1.0, 2.0]])
    path = run.folder / "scores.jsonl"
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    with pytest.raises(InputError, match=what) as error:
        run.cells()
    assert error.value.where == f"{path}:3"
    assert "emove the line" in str(error.value)


@pytest.mark.parametrize("fails", ["write", "sync", "write and truncate"])
def test_a_full_disk_in_one_append_costs_only_that_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_lines(path, [{"line": 1}])

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(file: Any, text: bytes) -> None:
        file.write(bytes(text[: len(text) // 2]))
        full()

    with monkeypatch.context() as patch:
        if fails == "sync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(files, "_write_all", half)
        if fails == "write and truncate":
            patch.setattr(os, "ftruncate", full)
        with pytest.raises(RunFailed, match="no disk space left"):
            files.append_lines(path, [{"line": 2}, {"line": 3}])
    if fails != "write and truncate":
        assert path.read_bytes() == b'{"line": 1}\n'
    files.append_lines(path, [{"line": 4}])
    found = [record["line"] for record in files.read_lines(path)]
    assert found[0] == 1 and found[-1] == 4 and 3 not in found


def test_a_changed_score_is_seen(make_run: MakeRun) -> None:
    run = make_run(rows=[(10.0, 20.0)])
    scores = run.folder / "scores.jsonl"
    whole = scores.read_text()
    assert run.cells()[0, "colour"].value == 10.0
    scores.write_text(whole.replace('"value": 10.0', '"value": 90.0'))
    with pytest.raises(SpecError, match="was changed after it was scored"):
        run.cells()
    bare = [
        {key: value for key, value in json.loads(line).items() if key != "digest"}
        for line in whole.splitlines()
    ]
    scores.write_text("".join(json.dumps(line) + "\n" for line in bare))
    with pytest.raises(SpecError, match=r"has no digest.*run the same command again \(moextend bench run\)"):
        run.cells()


def test_a_broken_config_is_named(make_run: MakeRun) -> None:
    run = make_run()
    path = run.folder / "config.json"
    record = json.loads(path.read_text())
    for text, what in [
        ("{", "not valid JSON"),
        ("[]", "holds no config"),
        (json.dumps({**record, "identity": {**record["identity"], "seed": 5}}), "was edited"),
        (json.dumps({**record, "identity": {"sead": 5}}), "holds no config"),
        (json.dumps({key: value for key, value in record.items() if key != "id"}), "holds no config"),
    ]:
        path.write_text(text)
        with pytest.raises(SpecError, match=what):
            _ = RunDir(run.folder).config


def test_a_full_disk_is_reported_and_loses_nothing(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(rows=[[1.0, 2.0]])

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match="no disk space left") as error:
        run.write_facts(task_identity="given")
    assert error.value.exit_code == 1
    assert not list(run.folder.glob(".facts*"))
    assert len(run.cells()) == 2
