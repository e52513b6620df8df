"""Runs that are queued or running are not submitted again; states and cancellation from the folders."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from moextend.bench.executors import submitting
from moextend.bench.executors.executor import (
    KNOWN,
    Executor,
    Job,
    JobState,
    Options,
    find,
    waits,
    write_job,
)
from moextend.bench.run.progress import Progress, cancel, cancelled, mark_failed, read_status
from moextend.bench.run.rundir import RunDir, locked
from moextend.errors import InputError, RunFailed, UnknownName
from tests.bench.conftest import MakeRun
from tests.bench.run.local import Silent

PLUGIN = """
import json
from pathlib import Path
from moextend.bench.executors.executor import Job, now, write_job

HERE = Path(__file__).parent

class Mine:
    def submit(self, runs, options):
        jobs = [Job(run=run, executor="mine", id=str(i), submitted=now()) for i, run in enumerate(runs)]
        for job in jobs:
            write_job(job)
        return jobs

    def states(self, jobs):
        return {job.run: (HERE / "state").read_text() for job in jobs}

    def cancel(self, jobs):
        (HERE / "cancelled").write_text(" ".join(job.id for job in jobs))
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with an executor of its own, whose jobs have the state in a file."""
    folder = tmp_path / "executors"
    folder.mkdir()
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "state").write_text("queued")
    return tmp_path


def test_an_executor_of_the_workspace_is_found(workspace: Path) -> None:
    found = find("mine", workspace)
    assert isinstance(found, Executor) and not waits(found) and waits(find("local", workspace))
    with pytest.raises(UnknownName, match="no executor 'min'"):
        find("min", workspace)


@pytest.mark.parametrize("target", ["other_package", "other_package:MINE"])
def test_an_executor_of_another_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    info = tmp_path / "other-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[moextend.executors]\nmine = {target}\n")
    (tmp_path / "other_package.py").write_text(f"{PLUGIN}\nMINE = Mine()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "other_package", raising=False)
    assert isinstance(find("mine", None), Executor)
    assert KNOWN.find("mine", None).source.origin == "other 1.2"


@pytest.mark.parametrize("text", ["x = 1", "class A:\n def submit(self): pass"])
def test_what_is_no_executor_is_refused(workspace: Path, text: str) -> None:
    (workspace / "executors" / "mine.py").write_text(text)
    with pytest.raises(InputError, match="has no functions submit, states and cancel") as caught:
        find("mine", workspace)
    assert "docs/adding.md says what an executor is." in str(caught.value)


def test_a_job_that_nobody_can_ask_about_is_busy_until_it_is_cancelled(make_run: MakeRun) -> None:
    run = make_run().folder
    write_job(Job(run=run, executor="elsewhere", id="1", submitted=""))
    assert submitting.busy([run], None) == {run: "not known to have ended (elsewhere 1)"}
    assert submitting.views([run], None)[run].state == "queued"
    assert submitting.cancel([run], None) == {run: "cancelled"}
    assert submitting.busy([run], None) == {} and submitting.views([run], None)[run].state == "cancelled"


def test_a_submission_forgets_the_last_attempt_and_a_refused_one_does_not(
    workspace: Path, make_run: MakeRun
) -> None:
    run = make_run().folder
    mark_failed(run, RunFailed("it broke."))
    cancel(run)

    class Refuses:
        def submit(self, runs: Sequence[Path], options: Options) -> list[Job]:
            raise InputError("no.")

        def states(self, jobs: Sequence[Job]) -> Mapping[Path, JobState]:
            return {}

        def cancel(self, jobs: Sequence[Job]) -> None:
            pass

    with pytest.raises(InputError):
        submitting.submit(Refuses(), [run], Options())
    assert read_status(run).state == "failed"
    submitting.submit(find("mine", workspace), [run], Options())
    assert read_status(run).state == "waiting" and not cancelled(run)


def test_a_run_that_is_cancelled_while_it_waits_has_not_failed(workspace: Path, make_run: MakeRun) -> None:
    run, executor = make_run().folder, find("mine", workspace)
    jobs = submitting.submit(executor, [run], Options())
    submitting.cancel([run], workspace)
    (workspace / "executors" / "state").write_text("lost")
    (outcome,) = submitting.follow(executor, jobs, Silent()).values()
    assert (outcome.state, outcome.error) == ("interrupted", None)


class WithUs:
    """An executor whose runs end with this process; the first one has begun."""

    waits = True

    def __init__(self) -> None:
        self.state: JobState = "queued"

    def submit(self, runs: Sequence[Path], options: Options) -> list[Job]:
        jobs = [Job(run=run, executor="with-us", id=str(i), submitted="") for i, run in enumerate(runs)]
        for job in jobs:
            write_job(job)
        return jobs

    def states(self, jobs: Sequence[Job]) -> Mapping[Path, JobState]:
        return {job.run: self.state for job in jobs}

    def cancel(self, jobs: Sequence[Job]) -> None:
        with suppress(KeyboardInterrupt), Progress(jobs[0].run, []):
            raise KeyboardInterrupt
        self.state = "ended"


def test_ctrl_c_interrupts_runs_and_cancels_none(make_run: MakeRun) -> None:
    runs = [make_run(seed=seed).folder for seed in range(2)]

    class Interrupting(Silent):
        def update(self) -> None:
            if executor.state == "queued":
                raise KeyboardInterrupt

    executor = WithUs()
    jobs = submitting.submit(executor, runs, Options())
    with pytest.raises(KeyboardInterrupt):
        submitting.follow(executor, jobs, Interrupting())
    assert [view.state for view in submitting.views(runs, None).values()] == ["interrupted", "waiting"]
    assert not any(map(cancelled, runs))


@pytest.mark.parametrize(
    ("status", "state", "shown"),
    [
        ("waiting", "queued", "queued"), ("waiting", "lost", "lost"), ("waiting", "running", "running"),
        ("interrupted", "queued", "queued"), ("interrupted", "ended", "interrupted"),
        ("failed", "ended", "failed"), ("failed", "queued", "queued"), ("done", "queued", "done"),
    ],
)  # fmt: skip
def test_a_state_for_people(workspace: Path, make_run: MakeRun, status: str, state: str, shown: str) -> None:
    run = make_run().folder
    submitting.submit(find("mine", workspace), [run], Options())
    (workspace / "executors" / "state").write_text(state)
    if status == "failed":
        mark_failed(run, RunFailed("it broke."))
    elif status == "done":
        with Progress(run, []):
            pass
    elif status == "interrupted":
        with pytest.raises(KeyboardInterrupt), Progress(run, []):
            raise KeyboardInterrupt
    view = submitting.views([run], workspace)[run]
    assert view.state == shown and view.record() is not None
    assert view.about() == f"mine 0, {state}"


def test_cancelling_asks_the_worker_and_the_executor(workspace: Path, make_run: MakeRun) -> None:
    queued, running, done, alone = (make_run(seed=seed).folder for seed in range(4))
    submitting.submit(find("mine", workspace), [queued, running, done], Options())
    with Progress(done, []):
        pass
    (workspace / "executors" / "state").write_text("queued")
    with locked([RunDir(running), RunDir(alone)]), Progress(running, []), Progress(alone, []):
        found = submitting.cancel([queued, running, done, alone], workspace)
    assert found == {queued: "cancelled", running: "stops", done: "not cancelled: done", alone: "stops"}
    assert [cancelled(run) for run in found] == [True, True, False, True]
    assert (workspace / "executors" / "cancelled").read_text() == "0 1"
