"""The executor of this machine."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from moextend.bench.executors import submitting
from moextend.bench.executors.executor import Options, Resources, find
from moextend.bench.executors.local import LocalExecutor
from moextend.bench.run import launch
from moextend.bench.run.progress import read_status
from moextend.errors import InputError
from tests.bench.conftest import MakeRun
from tests.bench.run.local import Silent
from tests.bench.run.test_launch import FAKE


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> LocalExecutor:
    monkeypatch.setattr(launch, "WORKER", tuple(FAKE))
    monkeypatch.setattr(launch, "TICK", 0.02)
    found = find("local", None)
    assert isinstance(found, LocalExecutor)
    return found


def test_runs_are_executed_and_followed(local: LocalExecutor, make_run: MakeRun) -> None:
    runs = [make_run("lora").folder, make_run("crash").folder]
    jobs = submitting.submit(local, runs, Options(jobs=2))
    assert {job.id for job in jobs} == {f"{os.getpid()}@{socket.gethostname()}"}
    outcomes = submitting.follow(local, jobs, Silent())
    assert [outcome.state for outcome in outcomes.values()] == ["done", "failed"]
    assert local.states(jobs) == dict.fromkeys(runs, "ended")


def test_a_running_and_a_waiting_run_are_cancelled_from_their_folders(
    local: LocalExecutor, make_run: MakeRun
) -> None:
    running, waiting = make_run("slow").folder, make_run("lora").folder
    jobs = submitting.submit(local, [running, waiting], Options(jobs=1))
    end = time.monotonic() + 60
    while read_status(running).phase != "train" and time.monotonic() < end:
        time.sleep(0.05)
    assert local.states(jobs) == {running: "running", waiting: "queued"}
    assert submitting.cancel([running, waiting], None) == {running: "stops", waiting: "cancelled"}
    outcomes = submitting.follow(local, jobs, Silent())
    assert [outcome.state for outcome in outcomes.values()] == ["interrupted", "interrupted"]
    assert [view.state for view in submitting.views([running, waiting], None).values()] == ["cancelled"] * 2
    again = submitting.submit(local, [waiting], Options())
    assert [outcome.state for outcome in submitting.follow(local, again, Silent()).values()] == ["done"]


@pytest.mark.parametrize(
    "options",
    [
        Options(passed={"partition": "x"}),
        Options(setup=("x",)),
        Options(address="x"),
        Options(resources=Resources(gpus=1)),
    ],
)
def test_it_has_no_options(local: LocalExecutor, tmp_path: Path, options: Options) -> None:
    with pytest.raises(InputError, match="not an option of the local executor"):
        local.submit([tmp_path], options)
