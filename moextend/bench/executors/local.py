"""Runs in worker processes of this machine; they end with the process that submitted them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moextend.bench.executors.executor import Job, JobState, Options, is_alive, now, this_process, write_job
from moextend.bench.run.launch import Outcome, Started, View
from moextend.bench.run.progress import cancel, read_status
from moextend.errors import InputError


class LocalExecutor:
    """Executes `Options.jobs` runs at a time, by default one. It passes no other option on."""

    waits = True

    def __init__(self) -> None:
        self._started: list[Started] = []

    def submit(self, runs: Sequence[Path], options: Options) -> list[Job]:
        """See `Executor`. The id of a job is `PID@HOST` of this process."""
        self.check(options)
        jobs = [Job(run=run, executor="local", id=this_process(), submitted=now()) for run in runs]
        for job in jobs:
            write_job(job)
        self._started.append(Started(runs, jobs=options.jobs or 1))
        return jobs

    def check(self, options: Options) -> None:
        """Raises InputError for any option but `jobs`."""
        given = {
            "address": options.address,
            "setup": options.setup,
            **vars(options.resources),
            **options.passed,
        }
        for name, value in given.items():
            if value not in (None, "", ()) or name in options.passed:
                raise InputError(
                    f"'{name}' is not an option of the local executor.",
                    where="--executor-option",
                    hint="It has none. --jobs sets the number of parallel runs.",
                )

    def states(self, jobs: Sequence[Job]) -> Mapping[Path, JobState]:
        """See `Executor`. Waiting runs of another machine count as ended: nobody else will begin them."""
        return {job.run: self._state(job) for job in jobs}

    def _state(self, job: Job) -> JobState:
        state = read_status(job.run).state
        if state == "running":
            return "running"
        return "queued" if state == "waiting" and is_alive(job) else "ended"

    def cancel(self, jobs: Sequence[Job]) -> None:
        """See `Executor`. The workers look at the request, as those of every executor do."""
        for job in jobs:
            cancel(job.run)

    def follow(self, view: View) -> dict[Path, Outcome]:
        """Shows all submitted runs until they ended, and returns how; KeyboardInterrupt after all stopped."""
        outcomes: dict[Path, Outcome] = {}
        while self._started:
            outcomes |= self._started[0].follow(view)
            del self._started[0]
        return outcomes
