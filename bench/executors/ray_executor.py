"""Runs as tasks of Ray Core: on this machine, or on a cluster whose nodes share the folders of runs and workspace.

A task starts a worker process and returns its exit code (ray_node.py); ray_grid.py decides what follows from it.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from moextend.bench.executors import ray_cluster, ray_node
from moextend.bench.executors.executor import Job, JobState, Options, now
from moextend.bench.executors.ray_grid import RETRIES, Grid, Task
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import State
from moextend.errors import InputError, UnknownName
from moextend.util.environment import code

PASSED = ("nodes", "retries", "temp_dir")
"""Options that are passed through."""
VARIABLES = ("HF_HUB_OFFLINE", "MOEXTEND_ALLOW_CODE", "MOEXTEND_DEBUG", "OMP_NUM_THREADS")
"""Environment variables that workers get from here; all others are those of their node."""


class RayExecutor:
    """Executes runs as tasks of Ray. `states` has to be called regularly: it submits again what was lost."""

    waits = True

    def __init__(self, command: Sequence[str] = ()) -> None:
        """Args: command: of a worker, without the folder; empty: that of the node's Python."""
        self.command = list(command)
        self.grid: Grid | None = None

    def submit(self, runs: Sequence[Path], options: Options) -> list[Job]:
        """See `Executor`. The connection to the cluster ends when `states` has seen the end of all runs."""
        retries = _retries(options.passed)
        if self.grid and not self.grid.closed:
            raise InputError("has runs of another submission.", where="--executor ray")
        cluster = ray_cluster.connect(options.address, options.passed.get("temp_dir"))
        try:
            needs = ray_cluster.needs_of(options.resources)
            if "nodes" not in options.passed:
                ray_cluster.refuse_impossible(needs)
            version = code()
            tasks = [
                Task(Job(run, "ray", "", now(), cluster.address), self._order(run, options, version))
                for run in runs
            ]
            self.grid = Grid(cluster, needs, tasks, most=options.jobs, retries=retries)
            self.grid.begin()
        except BaseException:
            cluster.close()
            raise
        return [task.job for task in tasks]

    def states(self, jobs: Sequence[Job]) -> Mapping[Path, JobState]:
        """See `Executor`. Of jobs of another process it knows what their folders say."""
        if self.grid and not self.grid.closed:
            self.grid.poll()
        return {job.run: self._state(job) for job in jobs}

    def cancel(self, jobs: Sequence[Job]) -> None:
        """See `Executor`. Workers of another process's jobs stop by the `cancel.json` of their run."""
        if self.grid and not self.grid.closed:
            self.grid.cancel({job.run for job in jobs})

    def _state(self, job: Job) -> JobState:
        state = read_status(job.run).state
        task = self.grid.tasks.get(job.run) if self.grid else None
        if task is None:
            return _state_elsewhere(job, state)
        if task.over:
            return "ended"
        return "running" if state == "running" else "queued"

    def _order(self, run: Path, options: Options, version: dict[str, str | None]) -> ray_node.Order:
        found = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        return ray_node.Order(
            run=str(run), config=hashlib.sha256((run / "config.json").read_bytes()).hexdigest(), code=version,
            command=self.command, setup=list(options.setup),
            environment={**found, "MOEXTEND_EXECUTOR": "ray"}, again=False,
        )  # fmt: skip


def _state_elsewhere(job: Job, state: State) -> JobState:
    """State of a job of another process; a run ends with the process that submitted it."""
    if state in ("running", "done", "failed"):
        return "running" if state == "running" else "ended"
    pid, _, host = job.id.partition("/")[0].partition("@")
    if host != socket.gethostname() or not pid.isdecimal():
        return "unknown"
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return "queued"
    except (ProcessLookupError, OverflowError):
        return "lost" if state == "waiting" else "ended"
    return "queued"


def _retries(passed: Mapping[str, str]) -> int:
    """Value of the option; InputError for a wrong or an unknown option."""
    for name in passed:
        if name not in PASSED:
            raise UnknownName("option of executor ray", name, PASSED, where="--executor-option")
    if passed.get("nodes", "later") != "later":
        raise InputError(f"'{passed['nodes']}' is not 'later'.", where="--executor-option nodes")
    text = passed.get("retries", str(RETRIES))
    if not text.isdecimal() or len(text) > 6:
        raise InputError(f"'{text}' is no number.", where="--executor-option retries", hint="From 0.")
    return int(text)
