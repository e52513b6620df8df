"""A run folder keeps results: its config, cells, facts and environments; one process works on it."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.opening import open_run
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.errors import InputError, RunConflict, RunFailed, SpecError, UnknownName
from moextend.util import files
from tests.bench.cells import cell_of
from tests.bench.conftest import MakeConfig, MakeRun


def test_config_is_written_first_and_read_back(tmp_path: Path, make_config: MakeConfig) -> None:
    config = make_config("moextend:scope=all", seed=3, order="reverse", places={"workspace": "/w"})
    run = open_run(config, tmp_path)
    assert run.folder == tmp_path / "mini" / "moextend+scope-all-s3-reverse"
    assert run.config == config
    assert run.config.stages == ["count", "colour"]
    assert run.config.retention == ["facts"]
    record = json.loads((run.folder / "config.json").read_text())
    assert record["digest"] == config.digest
    assert record["environments"][0]["packages"]["torch"]


def test_a_changed_environment_is_recorded_not_refused(
    tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = files.read_json(run.folder / "config.json")["environments"]
        return found

    run = open_run(make_config(), tmp_path)
    run.record_environment(device="cpu")
    assert len(noted()) == 2
    open_run(make_config(), tmp_path).record_environment(device="cpu")
    assert len(noted()) == 2
    monkeypatch.setattr("moextend.util.environment._version", lambda package: "99")
    open_run(make_config(), tmp_path).record_environment()
    assert [e["packages"]["torch"] for e in noted()][-1] == "99"


def test_the_last_line_of_a_cell_wins(make_run: MakeRun) -> None:
    run = make_run()
    run.append_cell(cell_of(1, "colour", 50.0, by_kind={"red": 40.0}))
    run.append_cell(cell_of(1, "colour", 60.0, stderr=1.5, n=10, readings={"strict": 55.0}))
    assert run.cells()[1, "colour"] == cell_of(1, "colour", 60.0, stderr=1.5, n=10, readings={"strict": 55.0})


def test_the_second_process_is_refused_and_sees_who_holds_the_run(make_run: MakeRun) -> None:
    run = make_run()
    code = (
        "import pathlib; from moextend.bench.run.rundir import RunDir\n"
        f"with RunDir(pathlib.Path({str(run.folder)!r})).lock(): pass"
    )
    with run.lock():
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        with pytest.raises(RunConflict, match=f"process {os.getpid()} on "), RunDir(run.folder).lock():
            pass
    assert f"another process is working on this run (process {os.getpid()} on" in second.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_runs_are_found_by_name_sequence_or_path(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = make_run("lora").folder, make_run("lora", 1).folder
    runs = tmp_path / "runs"

    def found(*names: str) -> list[Path]:
        return [run.folder for run in find_runs(runs, names)]

    assert found() == found("mini") == found(str(runs)) == found("mini", "lora-s0") == [first, second]
    assert found("lora-s1") == found("mini/lora-s1") == found(str(second)) == [second]
    with pytest.raises(UnknownName, match=r"no run 'lora-s2'\. Did you mean 'mini/lora-s"):
        found("lora-s2")
    assert find_runs(tmp_path / "nothing") == []


def test_a_torn_last_line_is_left_out_and_cut_by_the_next_append(make_run: MakeRun) -> None:
    run = make_run(rows=[[1.0, 2.0]])
    path = run.folder / "scores.jsonl"
    with path.open("a") as file:
        file.write('{"stage": 1, "task": "col')
    assert len(run.cells()) == 2
    with run.lock():
        assert path.read_text().endswith('"task": "col')
        run.append_cell(cell_of(1, "colour", 3.0))
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


@pytest.mark.parametrize("fails", ["sync", "write and truncate"])
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
