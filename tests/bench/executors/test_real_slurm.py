"""Grids on a real Slurm of one machine, which a test starts: to the end, preempted, killed, cancelled, continued."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moextend.bench.executors import submitting
from moextend.bench.executors.executor import Options, find
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import Status
from moextend.bench.run.rundir import RunDir
from tests.bench.conftest import MakeRun
from tests.bench.executors.one_machine_slurm import Slurm, lacking, slurm_of_one_machine, until
from tests.robustness import workspace as small

pytestmark = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))
FAKE = Path(__file__).parents[1] / "run" / "fake_worker.py"
PYTHON = """#!/bin/bash
case "$4" in
moextend.bench.run.worker) shift 4; [ -f {fast} ] && export FAKE=lora; exec {python} {fake} "$@" ;;
*) exec {python} "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    before = dict(os.environ)
    with slurm_of_one_machine() as found:
        os.environ.update(found.environment)
        try:
            yield found
        finally:
            os.environ.clear()
            os.environ.update(before)


class Pretended:
    """Runs with a worker that computes nothing, in a folder whose name has everything that is special."""

    def __init__(self, make_run: MakeRun, place: Path, *methods: str, **passed: str) -> None:
        folder = place / """a 'b' "c" $HOME %a #d"""
        folder.mkdir()
        made = [make_run(method).folder for method in methods]
        self.runs = [run.rename(folder / run.name) for run in made]
        self.fast, python = place / "fast", place / "python"
        words = {"fast": self.fast, "python": sys.executable, "fake": FAKE}
        python.write_text(PYTHON.format(**{key: shlex.quote(str(value)) for key, value in words.items()}))
        python.chmod(0o755)
        passed = {"python": f"{shlex.quote(str(python))} -u", "comment": "it's", **passed}
        self.executor = find("slurm", None)
        self.jobs = submitting.submit(self.executor, self.runs, Options(passed=passed, runs=folder))

    def train(self, *numbers: int) -> None:
        """Waits until these runs, which are slow, train."""
        until(
            lambda: all(read_status(self.runs[number]).phase == "train" for number in numbers), "training", 60
        )

    def done(self, number: int) -> None:
        """Waits until a run is done."""
        until(lambda: read_status(self.runs[number]).state == "done", "the end of a run", 60)

    def states(self) -> list[str]:
        states = self.executor.states(self.jobs)
        return [states[run] for run in self.runs]


@pytest.mark.slow  # starts daemons, and waits for them
def test_runs_end_and_are_cancelled(slurm: Slurm, make_run: MakeRun, tmp_path: Path) -> None:
    grid = Pretended(make_run, tmp_path, "lora", "slow", "slow-2")
    assert [job.id.partition("_")[2] for job in grid.jobs] == ["1", "2", "1"], "this cluster has small arrays"
    grid.done(0)
    grid.train(1, 2)
    assert grid.states() == ["ended", "running", "running"]
    found = submitting.cancel(grid.runs, None)
    assert list(found.values()) == ["not cancelled: done", "stops", "stops"]
    until(lambda: not slurm.states(), "the end of the jobs", 60)
    assert [view.state for view in submitting.views(grid.runs, None).values()] == [
        "done",
        "cancelled",
        "cancelled",
    ]
    assert all(Path(job.log).read_text().count("\n") < 2 for job in grid.jobs)


@pytest.mark.long
def test_a_job_that_is_removed_with_scancel_stays_removed(
    slurm: Slurm, make_run: MakeRun, tmp_path: Path
) -> None:
    grid = Pretended(make_run, tmp_path, "slow")
    grid.train(0)
    slurm("scancel", grid.jobs[0].id)
    until(lambda: not slurm.states(), "the end of the job", 60)
    assert read_status(grid.runs[0]).state == "interrupted", "it saved its state"
    time.sleep(8)
    assert not slurm.states() and grid.states() == ["ended"]


@pytest.mark.long
@pytest.mark.parametrize("wrap", ["exec", "srun --ntasks=1"])
def test_a_time_limit_is_no_end(slurm: Slurm, make_run: MakeRun, tmp_path: Path, wrap: str) -> None:
    grid = Pretended(make_run, tmp_path, "slow", wrap=wrap)
    grid.train(0)
    grid.fast.touch()
    slurm("scontrol", "update", f"JobId={grid.jobs[0].id}", "TimeLimit=1")
    grid.done(0)
    until(lambda: not slurm.states(), "the end of the job", 60)


class Workspace:
    """A workspace of small pictures, whose runs the command line makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = small.make(folder)

    def moextend(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "moextend", "bench", *words], cwd=self.folder,
            capture_output=True, text=True, timeout=900, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def run(self, *words: str) -> str:
        return self.moextend("run", "small", "--steps", STEPS, *words)

    def submit(self, *words: str) -> str:
        return self.run("--executor", "slurm", *words)

    def status(self, name: str) -> Status:
        return read_status(self.path(name))

    def path(self, name: str) -> Path:
        return self.folder / "runs" / "small" / name

    def results(self, name: str) -> dict[tuple[int, str], tuple[float, bytes]]:
        """Cell -> its score and its predictions."""
        run = RunDir(self.path(name))
        return {
            key: (cell.value, (run.folder / str(cell.predictions)).read_bytes() if cell.predictions else b"")
            for key, cell in run.cells().items()
        }

    def ended(self, *names: str) -> None:
        until(lambda: all(self.status(name).state == "done" for name in names), f"{names}", 900)


STEPS = "150"
"""Enough for a test to meet a run while it trains; there is a checkpoint at each of them."""
METHODS = ("-m", "full-ft", "--seed", "0,1")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same grid with the local executor."""
    found = Workspace(tmp_path_factory.mktemp("local") / "workspace")
    found.run(*METHODS, "--jobs", "2")
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work space")


def training(workspace: Workspace, name: str) -> Status:
    """Waits until a run trains its second stage."""

    def trains() -> bool:
        status = workspace.status(name)
        assert status.state != "done", f"{name} ended before it was seen to train: raise STEPS"
        return status.phase == "train" and status.stage == 2

    until(trains, name, 600)
    return workspace.status(name)


LONG = pytest.mark.timeout(1800)


@LONG
@pytest.mark.long
def test_a_cancelled_and_a_killed_run_are_continued_by_the_same_command(
    slurm: Slurm, local: Workspace, workspace: Workspace
) -> None:
    assert workspace.submit(*METHODS, "--jobs", "1").count(": slurm ") == 2
    training(workspace, "full-ft-s0")
    assert workspace.moextend("cancel", "small").splitlines() == [
        "small/full-ft-s0: stops", "small/full-ft-s1: cancelled",
    ]  # fmt: skip
    until(lambda: not slurm.states(), "the end of the jobs", 120)
    assert workspace.moextend("status").count("cancelled") == 2
    assert workspace.results("full-ft-s0")
    workspace.submit(*METHODS)
    assert "full-ft-s1" in (again := workspace.submit(*METHODS)) and "is not submitted again" in again
    os.kill(training(workspace, "full-ft-s1").pid or 0, signal.SIGKILL)
    until(lambda: not slurm.states(), "the end of the jobs", 900)
    workspace.submit(*METHODS)
    workspace.ended("full-ft-s0", "full-ft-s1")
    for name in ("full-ft-s0", "full-ft-s1"):
        assert workspace.results(name) == local.results(name), name
