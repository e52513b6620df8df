"""Submits runs, follows them, and says what became of their jobs, for every executor alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moextend.bench.executors.executor import (
    JOB,
    Executor,
    Job,
    JobState,
    Options,
    find,
    jobs_of,
)
from moextend.bench.executors.local import LocalExecutor
from moextend.bench.run import launch, progress
from moextend.bench.run.launch import GRACE, Outcome, View
from moextend.bench.run.progress import CANCELLED, STATUS, cancelled, read_status
from moextend.bench.run.records import Status
from moextend.errors import InputError, MoextendError
from moextend.util import files

POLL = 1.0
"""Seconds between two questions to an executor whose runs end with this process."""
LOST = "the job ended before the run began"


def submit(executor: Executor, runs: Sequence[Path], options: Options) -> list[Job]:
    """Submits runs that no other job has; if they are refused, they keep their status."""
    former = {run: path.read_bytes() for run in runs if (path := run / STATUS).is_file()}
    for run in runs:
        launch.forget_attempt(run)
    try:
        return executor.submit([run.resolve() for run in runs], options)
    except MoextendError:
        for run, status in former.items():
            if not (run / STATUS).exists():
                (run / STATUS).write_bytes(status)
        raise


def follow(executor: Executor, jobs: Sequence[Job], view: View) -> dict[Path, Outcome]:
    """Shows runs, which end with this process, until all jobs ended; returns how. KeyboardInterrupt stops them."""
    if isinstance(executor, LocalExecutor):
        with launch.terminations_as_interrupts():
            return executor.follow(view)
    with launch.terminations_as_interrupts():
        try:
            _watch(executor, jobs, view)
        except KeyboardInterrupt:
            _stop(executor, jobs, view)
            raise
    return {job.run: _outcome(job.run) for job in jobs}


def _watch(executor: Executor, jobs: Sequence[Job], view: View, *, seconds: float = float("inf")) -> None:
    """Shows runs until all jobs ended, for at most `seconds`."""
    end, asked = time.monotonic() + seconds, float("-inf")
    left = list(jobs)
    while left and time.monotonic() < end:
        launch.show(view)
        if time.monotonic() - asked >= POLL:
            states = executor.states(left)
            left = [job for job in left if states.get(job.run) not in ("ended", "lost")]
            asked = time.monotonic()
        time.sleep(launch.TICK)
    launch.show(view)


def _stop(executor: Executor, jobs: Sequence[Job], view: View) -> None:
    """Has runs stop in order; those that have not begun are then as if they had not been submitted."""
    executor.cancel(jobs)
    _watch(executor, jobs, view, seconds=GRACE)
    for job in jobs:
        if read_status(job.run).state == "waiting":
            files.remove(job.run / JOB)


def _outcome(run: Path) -> Outcome:
    status = read_status(run)
    if status.state == "waiting" and cancelled(run):
        return Outcome(run, "interrupted")
    if status.state == "waiting":
        return Outcome(run, "failed", f"{LOST}.")
    return Outcome(run, status.state, None if status.error is None else str(status.error))


def states_of(jobs: Sequence[Job], workspace: Path | None) -> dict[Path, JobState]:
    """Run folder -> state of its job; "unknown" where the executor is not there or does not answer."""
    found: dict[Path, JobState] = dict.fromkeys((job.run for job in jobs), "unknown")
    for name, mine in _by_executor(jobs).items():
        try:
            found |= find(name, workspace).states(mine)
        except (Exception, SystemExit):  # somebody's code, a cluster that is away: the folders still speak
            continue
    return found


def _by_executor(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.executor, []).append(job)
    return found


def busy(runs: Sequence[Path], workspace: Path | None) -> dict[Path, str]:
    """Run -> "running (slurm 12_3)", for those that a job executes or will execute.

    Those of `--executor local` are left out: their workers hold the locks of their folders.
    """
    jobs = [job for job in jobs_of(runs) if job.executor != "local"]
    states = states_of(jobs, workspace)
    found = {}
    for job in jobs:
        state = states[job.run]
        if state == "unknown" and not cancelled(job.run) and read_status(job.run).state == "waiting":
            found[job.run] = f"not known to have ended ({job.executor} {job.id})"
        elif state in ("queued", "running"):
            found[job.run] = f"{state} ({job.executor} {job.id})"
    return found


@dataclass(frozen=True)
class RunView:
    """How a run goes: its status, and its job where there is one."""

    status: Status
    job: Job | None = None
    job_state: JobState | None = None
    cancelled: bool = False

    @property
    def state(self) -> str:
        """State for people: that of the status, or queued, running, lost or cancelled."""
        status, job_state = self.status.state, self.job_state
        at_work = job_state in ("queued", "running")
        if status in ("done", "running") or (status == "failed" and not at_work):
            return status
        if self.cancelled:
            return CANCELLED
        if self.job is None or self.job.executor == "local" or job_state in (None, "ended"):
            return status
        if job_state == "unknown":
            return "queued" if status == "waiting" else status
        return str(job_state)

    @property
    def note(self) -> str:
        """Why it goes no further, or what it waits for, where that is known."""
        if self.state == "lost":
            return "" if self.status.state == "lost" else LOST
        if self.state == "waiting" and self.job and self.job_state == "queued":
            return f"in the queue of process {self.job.id}"
        return ""

    def about(self) -> str:
        """The job in words: "slurm 12_3, queued"."""
        assert self.job
        return f"{self.job.executor} {self.job.id}, {self.job_state}"

    def record(self) -> dict[str, str | None] | None:
        """The job for scripts; None without one."""
        job = self.job
        if job is None:
            return None
        return {
            "executor": job.executor, "id": job.id, "submitted": job.submitted,
            "state": self.job_state, "shown": self.state,
        }  # fmt: skip


def views(runs: Sequence[Path], workspace: Path | None) -> dict[Path, RunView]:
    """How runs go, from their folders; an executor is asked once for all its jobs."""
    jobs = {job.run: job for job in jobs_of(runs)}
    states = states_of(list(jobs.values()), workspace)
    return {run: RunView(read_status(run), jobs.get(run), states.get(run), cancelled(run)) for run in runs}


def cancel(runs: Sequence[Path], workspace: Path | None) -> dict[Path, str]:
    """Cancels runs that are going on or queued; returns run -> what happened."""
    jobs = {job.run: job for job in jobs_of(runs)}
    states = states_of(list(jobs.values()), workspace)
    found: dict[Path, str] = {}
    asked: list[Job] = []
    for run in runs:
        status, state = read_status(run).state, states.get(run)
        if status == "running" or state == "running":
            found[run] = "stops"
        elif state in ("queued", "unknown") and status != "done":
            found[run] = CANCELLED
        else:
            found[run] = f"not cancelled: {LOST if state == 'lost' else status}"
            continue
        progress.cancel(run)
        if run in jobs:
            asked.append(jobs[run])
    for name, mine in _by_executor(asked).items():
        with suppress(InputError):  # a plug-in that is not installed here: the workers find the request
            find(name, workspace).cancel(mine)
    return found
