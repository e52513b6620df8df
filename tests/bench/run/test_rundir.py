"""A run folder keeps results: its config, cells, facts and environments; one process works on it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.config import differences
from moextend.bench.run.opening import open_run
from moextend.bench.run.records import RunFacts
from moextend.bench.run.rundir import Cell, RunDir, find_runs, slug
from moextend.errors import RunConflict, UnknownName
from moextend.util import files
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


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("moextend:scope=all,routing=paper", "moextend+scope-all+routing-paper"),
        ("lora", "lora"),
        ("../../etc/passwd", "etc-passwd"),
        ("random:3", "random+3"),
        ("a b/c\\d*", "a-b-c-d"),
        ("..", "_"),
    ],
)
def test_slugs_are_safe_in_a_path(text: str, name: str) -> None:
    assert slug(text) == name


def test_only_the_first_differences_are_listed() -> None:
    a, b = {"x": [1, {"y": 2}], "z": 1}, {"x": [1, {"y": 3}], "w": 1}
    assert differences(a, b) == [("x[1].y", 2, 3), ("z", 1, None), ("w", None, 1)]


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
    run.append_cell(Cell(stage=1, task="colour", value=50.0, by_kind={"red": 40.0}))
    run.append_cell(Cell(stage=1, task="colour", value=60.0, stderr=1.5, n=10, readings={"strict": 55.0}))
    assert run.cells()[1, "colour"] == Cell(
        stage=1, task="colour", value=60.0, stderr=1.5, n=10, readings={"strict": 55.0}
    )


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


def test_facts_are_added_key_by_key(make_run: MakeRun) -> None:
    run = make_run()
    assert run.facts() == RunFacts()
    run.write_facts(task_identity="none")
    run.write_facts(majority={"colour": 25.0})
    assert run.facts() == RunFacts(run=run.id, task_identity="none", majority={"colour": 25.0})


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
