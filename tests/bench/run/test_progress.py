"""status.json contains the progress of a run, and distinguishes a live run from a dead one."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.progress import Progress, Unit, mark_failed, read_status
from moextend.bench.run.records import RunError, Status
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError, RunFailed

PLAN = [
    Unit("score", 0, "colour", 10),
    Unit("train", 1, "colour", 100),
    Unit("score", 1, "colour", 10),
    Unit("train", 2, "count", 100),
    Unit("score", 2, "count", 10),
]


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def test_status_while_running(tmp_path: Path) -> None:
    with RunDir(tmp_path).lock(), Progress(tmp_path, PLAN) as run:
        run.begin(PLAN[0])
        status = read_status(tmp_path)
        assert (status.state, status.phase, status.stage, status.stages) == ("running", "score", 0, 2)
        assert (status.task, status.step, status.steps, status.units) == ("colour", 0, 10, 5)
        run.finish(PLAN[0])
        assert read_status(tmp_path).done == 1
    assert (read_status(tmp_path).state, read_status(tmp_path).left) == ("done", 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_time_left_is_unknown_until_every_phase_to_come_was_measured(tmp_path: Path, clock: Clock) -> None:
    with Progress(tmp_path, PLAN) as run:
        run.begin(PLAN[0])
        clock.now += 20  # 2 seconds per item
        run.advance(10)
        run.finish(PLAN[0])
        assert run.status().left is None
        run.begin(PLAN[1])
        clock.now += 10
        run.advance(10)  # 1 second a step
        assert run.status().left == pytest.approx(90 + 20 + 100 + 20)
        assert run.status().fraction == pytest.approx(30 / 260)


@pytest.mark.parametrize(
    "change",
    [
        {"left": float("nan")}, {"phase": ["train"]}, {"task": 5}, {"step": "x"}, {"done": None}, {"pid": "1"},
        {"error": {"what": 5, "where": None, "hint": None}}, {"error": {"what": "x"}}, {"host": None},
    ],
)  # fmt: skip
def test_a_status_of_wrong_values_is_an_interrupted_run(
    tmp_path: Path,
    change: dict[str, Any],
) -> None:
    Progress(tmp_path, PLAN).begin(PLAN[1])
    record = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps({**record, **change}))
    assert read_status(tmp_path) == Status(state="interrupted")


def test_a_failed_run_says_what_where_and_a_hint(tmp_path: Path) -> None:
    with pytest.raises(RunFailed), Progress(tmp_path, PLAN):
        raise RunFailed("no disk space left.", where="/runs", hint="Free some.")
    status = read_status(tmp_path)
    assert status.state == "failed"
    assert status.error == RunError(what="no disk space left.", where="/runs", hint="Free some.")
    with pytest.raises(ZeroDivisionError), Progress(tmp_path, PLAN):
        _ = 1 / 0
    error = read_status(tmp_path).error
    assert (
        error
        and error.what
        and error.what.startswith("ZeroDivisionError: division by zero (test_progress.py:")
    )


def test_a_killed_process_leaves_an_interrupted_run(tmp_path: Path) -> None:
    code = (
        "import os, signal, pathlib; from moextend.bench.run.progress import *\n"
        "unit = Unit('train', 1, 'x', 9)\n"
        f"Progress(pathlib.Path({str(tmp_path)!r}), [unit]).begin(unit)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"
    assert read_status(tmp_path).state == "interrupted"
    assert read_status(tmp_path).stage == 1


def test_the_parent_can_mark_a_run_failed(tmp_path: Path) -> None:
    Progress(tmp_path, PLAN).begin(PLAN[1])
    mark_failed(tmp_path, InputError("was killed.", where="log"))
    status = read_status(tmp_path)
    assert status.error
    assert (status.state, status.error.what, status.task) == ("failed", "was killed.", "colour")
