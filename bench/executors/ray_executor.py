"""Runs as tasks of Ray Core: on this machine, or on a cluster whose nodes share the folders of runs and workspace.

A task starts a worker process and returns its exit code (ray_node.py); ray_grid.py decides what follows from it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from moextend.bench.executors import ray_cluster, ray_node
from moextend.bench.executors.executor import COMMON, Job, JobState, Options, now
from moextend.bench.executors.job import is_alive
from moextend.bench.executors.ray_grid import RETRIES, Grid, Task
from moextend.bench.run.cancelling import EXECUTOR
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import State
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError, UnknownName
from moextend.util.environment import code

PASSED = ("files", "nodes", "retries", "temp_dir")
"""Options that are passed through."""
WHY = {
    "files": "A run also reads the workspace's tasks, data and caches; nothing is copied to nodes and back.",
    "nodes": "Leave the option out for a cluster that does not grow.",
}
VARIABLES = (
    "HF_HUB_OFFLINE", "MOEXTEND_ALLOW_CODE", "MOEXTEND_DEBUG", "MOEXTEND_LEASE_SECONDS", "OMP_NUM_THREADS",
)  # fmt: skip
"""Environment variables that workers get from here; all others are those of their node."""


class RayExecutor:
    """Executes runs as tasks of Ray. `states` has to be called regularly: it submits again what was lost."""

    waits = True

    def __init__(self, command: Sequence[str] = ()) -> None:
        """Args: command: of a worker, without the folder; empty: that of the node's Python."""
        self.command = list(command)
        self.grid: Grid | None = None

    def check(self, options: Options) -> None:
        """Raises InputError if an option is wrong, or Ray is not installed."""
        _check(options.passed)
        ray_cluster.refuse_client(options.address)
        ray_cluster.refuse_missing()

    def submit(self, runs: Sequence[Path], options: Options) -> list[Job]:
        """See `Executor`. The connection to the cluster ends when `states` has seen the end of all runs."""
        self.check(options)
        if self.grid and not self.grid.closed:
            raise InputError(
                "has runs of another submission.",
                where="--executor ray",
                hint="Wait for them, or cancel them.",
            )
        cluster = ray_cluster.connect(options.address, options.passed.get("temp_dir"))
        try:
            version = code()
            tasks = [
                Task(Job(run, "ray", "", now(), cluster.address), self._order(run, options, version), wanted)
                for run, wanted in zip(runs, _needs(runs, options), strict=True)
            ]
            self.grid = Grid(
                cluster, tasks, most=options.jobs, retries=int(options.passed.get("retries", RETRIES))
            )
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

    def _order(self, run: Path, options: Options, version: ray_node.Code) -> ray_node.Order:
        found = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        return ray_node.Order(
            run=str(run), id=RunDir(run).id, code=version,
            command=self.command, setup=list(options.setup),
            environment={**found, EXECUTOR: "ray"}, again=False,
        )  # fmt: skip


def _needs(runs: Sequence[Path], options: Options) -> list[ray_cluster.Needs]:
    """What each run needs; InputError if no node has that, unless the cluster grows."""
    from moextend.bench.executors import needs  # torch, which `bench status` needs not import

    common = ray_cluster.needs_of(options.resources)
    found = [common] * len(runs)
    if options.resources.memory_gb is None:
        sizes = needs.memory_gb([RunDir(run).config for run in runs], on_gpu=common["GPU"] > 0)
        found = [{**common, "memory": size * 1e9} if size else common for size in sizes]
    if "nodes" not in options.passed:
        ray_cluster.refuse_impossible(found)
    return found


def _state_elsewhere(job: Job, state: State) -> JobState:
    """State of a job of another process; a run ends with the process that submitted it."""
    if state in ("running", "done", "failed"):
        return "running" if state == "running" else "ended"
    alive = is_alive(job)
    if alive is None:
        return "unknown"
    if alive:
        return "queued"
    return "lost" if state == "waiting" else "ended"


def _check(passed: Mapping[str, str]) -> None:
    """Raises InputError for an unknown option, or a wrong value of one."""
    for name in passed:
        if name not in PASSED:
            raise UnknownName("option of executor ray", name, [*PASSED, *COMMON], where="--executor-option")
    for name, only in {"files": "shared", "nodes": "later"}.items():
        if passed.get(name, only) != only:
            raise InputError(
                f"'{passed[name]}' is not '{only}'.", where=f"--executor-option {name}", hint=WHY[name]
            )
    retries = passed.get("retries", str(RETRIES))
    if not retries.isdecimal() or len(retries) > 6:
        raise InputError(f"'{retries}' is not a number.", where="--executor-option retries", hint="From 0.")
