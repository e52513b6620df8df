"""Runs as tasks of Ray Core: on this machine, or on a cluster whose nodes share the folders of runs and workspace.

A task starts a worker process and returns its exit code (ray_node.py); the executor decides what follows from it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moextend.bench.executors import ray_cluster, ray_node
from moextend.bench.executors.executor import (
    COMMON,
    Job,
    JobState,
    Options,
    is_alive,
    now,
    this_process,
    write_job,
)
from moextend.bench.run.launch import ending
from moextend.bench.run.progress import EXECUTOR, STOPPED, cancelled, mark_failed, read_status
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError, MoextendError, RunBusy, RunFailed, UnknownName, last_line
from moextend.util.environment import code

RETRIES = 3
"""Times that a lost run is submitted again without having come further."""
READ = "Read the log; the same command continues where the run stopped."
INSTALL = "Install the same moextend on every node, with the dependencies of this machine."
SHARE = "The folders of runs and workspace must be on a file system that all nodes share, at the same path."
PASSED = ("nodes", "retries", "temp_dir")
"""Options of this executor alone."""
VARIABLES = (
    "HF_HUB_OFFLINE", "MOEXTEND_ALLOW_CODE", "MOEXTEND_DEBUG", "MOEXTEND_LEASE_SECONDS",
    "MOEXTEND_MICRO_BATCH", "OMP_NUM_THREADS",
)  # fmt: skip
"""Environment variables that workers get from here; all others are those of their node."""


@dataclass
class Task:
    """A run, and its current attempt."""

    job: Job
    order: ray_node.Order
    reference: Any = None
    """Ray's reference to the answer; None: the run waits for its turn, or is over."""
    reached: tuple[int, ...] = (0, 0)
    """Units and steps that were done when it was lost last."""
    losses: int = 0
    """Losses since it last came further."""
    stopped: bool = False
    """Whether it was cancelled."""
    over: bool = False
    visible_by: float = 0.0
    """Time (monotonic) at which the end of the run must be visible here; 0: it has not ended well."""

    def fail(self, error: MoextendError, worker: tuple[str, int] | None = None) -> None:
        """Ends the run. The error that its worker recorded comes first; a run of another process stays as it is."""
        self.over = True
        status = read_status(self.job.run)
        if status.state == "running" and (status.host, status.pid) != worker:
            write_job(replace(self.job, note=str(error)))
        elif status.state != "failed":
            mark_failed(self.job.run, error)

    def look(self) -> None:
        """Ends the run once its end is visible here."""
        if read_status(self.job.run).state == "done":
            self.over = True
        elif time.monotonic() > self.visible_by:
            what = "its worker finished, but its results are not in this folder."
            self.fail(RunFailed(what, where=str(self.job.run), hint=SHARE))


class RayExecutor:
    """Executes runs as tasks of Ray. `states` has to be called regularly: it submits again what was lost."""

    waits = True

    def __init__(self, command: Sequence[str] = ()) -> None:
        """Args: command: of a worker, without the folder; empty: that of the node's Python."""
        self.command = list(command)
        self.tasks: dict[Path, Task] = {}
        self.going = False
        """Whether a submission is not over yet."""

    def check(self, options: Options) -> None:
        """Raises InputError if an option is wrong, or Ray is not installed."""
        for name in options.passed:
            if name not in PASSED:
                raise UnknownName(
                    "option of executor ray", name, [*PASSED, *COMMON], where="--executor-option"
                )
        retries, nodes = options.passed.get("retries", str(RETRIES)), options.passed.get("nodes", "later")
        if not retries.isdecimal() or len(retries) > 6:
            raise InputError(
                f"'{retries}' is not a number.", where="--executor-option retries", hint="From 0."
            )
        if nodes != "later":
            hint = "Leave the option out for a cluster that does not grow."
            raise InputError(f"'{nodes}' is not 'later'.", where="--executor-option nodes", hint=hint)
        ray_cluster.address_of(options.address)
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise InputError(
                "the package 'ray' is not installed.",
                where="--executor ray",
                hint="pip install 'moextend[ray]'",
            ) from error

    def submit(self, runs: Sequence[Path], options: Options) -> list[Job]:
        """See `Executor`. The connection to the cluster ends when `states` has seen the end of all runs."""
        self.check(options)
        import ray

        if self.going:
            hint = "Wait for them, or cancel them."
            raise InputError("has runs of another submission.", where="--executor ray", hint=hint)
        address, self.joined = ray_cluster.connect(options.address, options.passed.get("temp_dir"))
        try:
            needs = ray_cluster.needs_of(options.resources, later="nodes" in options.passed)
            # Nodes import the function by its name: no code is sent. SPREAD: runs share nodes only if they have to.
            self.function = ray.remote(max_retries=0, scheduling_strategy="SPREAD")(ray_node.work).options(
                num_cpus=needs["CPU"], num_gpus=needs["GPU"], memory=needs.get("memory")
            )
            self.most = options.jobs or len(runs)  # else Ray's resources limit them
            self.retries = int(options.passed.get("retries", RETRIES))
            version = code()
            self.tasks = {
                run: Task(Job(run, "ray", this_process(), now(), address), self._order(run, options, version))
                for run in runs
            }
            for task in self.tasks.values():
                write_job(task.job)
            self.going = True
            self._fill()
        except BaseException:
            self._close()
            raise
        return [task.job for task in self.tasks.values()]

    def _order(self, run: Path, options: Options, version: dict[str, str | None]) -> ray_node.Order:
        found = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        return ray_node.Order(
            run=str(run), id=RunDir(run).id, code=version,
            command=self.command, setup=list(options.setup),
            environment={**found, EXECUTOR: "ray"}, again=False,
        )  # fmt: skip

    def _close(self) -> None:
        import ray

        self.going = False
        if self.joined:
            ray.shutdown()

    def states(self, jobs: Sequence[Job]) -> Mapping[Path, JobState]:
        """See `Executor`. Of jobs of another process it knows what their folders say."""
        if self.going:
            self._poll()
        return {job.run: self._state(job) for job in jobs}

    def _state(self, job: Job) -> JobState:
        state, task = read_status(job.run).state, self.tasks.get(job.run)
        if task is not None:
            return "ended" if task.over else "running" if state == "running" else "queued"
        if state in ("running", "done", "failed"):
            return "running" if state == "running" else "ended"
        alive = is_alive(job)  # a run ends with the process that submitted it
        if alive is None:
            return "unknown"
        return "queued" if alive else "lost" if state == "waiting" else "ended"

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Forgets runs that wait, and interrupts the tasks of the others, which stop their workers in order.

        Workers of another process's jobs stop by the `cancel.json` of their run.
        """
        for job in jobs:
            self._cancel(job.run)

    def _cancel(self, run: Path) -> None:
        import ray

        task = self.tasks.get(run)
        # A second interrupt would break off the saving.
        if not self.going or task is None or task.over or task.stopped:
            return
        task.stopped = True
        if task.reference is None:
            task.over = True
        else:
            ray.cancel(task.reference, force=False, recursive=False)

    def _poll(self) -> None:
        """Takes in what ended, and submits what waits. The connection is closed after the last run."""
        import ray

        going = {task.reference: task for task in self.tasks.values() if task.reference is not None}
        for (
            task
        ) in going.values():  # `bench cancel` in another process: a worker that runs finds the request itself
            if cancelled(task.job.run) and read_status(task.job.run).state != "running":
                self._cancel(task.job.run)
        ended, _ = ray.wait(list(going), num_returns=len(going), timeout=0) if going else ([], [])
        for reference in ended:
            going[reference].reference = None
            self._take(going[reference], reference)
        for task in self.tasks.values():
            if task.visible_by and not task.over:
                task.look()
        self._fill()
        if all(task.over for task in self.tasks.values()):
            self._close()

    def _fill(self) -> None:
        """Submits runs that wait."""
        going = sum(task.reference is not None for task in self.tasks.values())
        for task in self.tasks.values():  # `bench cancel`, in whatever process
            task.over |= task.reference is None and not task.visible_by and cancelled(task.job.run)
        waiting = [t for t in self.tasks.values() if t.reference is None and not t.over and not t.visible_by]
        for task in waiting[: self.most - going]:
            task.reference = self.function.remote(task.order)
            name = task.reference.task_id().hex()
            task.job = replace(task.job, id=f"{this_process()}/{name}", submitted=now())
            write_job(task.job)

    def _take(self, task: Task, reference: Any) -> None:
        """Decides what follows from the end of a task."""
        import ray
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError, TaskUnschedulableError

        try:
            answer: ray_node.Answer = ray.get(reference)
        except TaskCancelledError:
            task.over = True
        except (RayTaskError, TaskUnschedulableError) as error:
            last = str(error).strip().rpartition("\n")[2]
            task.fail(RunFailed(f"{last}.", where=str(task.job.run), hint=INSTALL))
        except RayError as error:  # the process that waited for the worker is gone, or its node
            self._lose(task, f"{type(error).__name__}: {ray_cluster.first_line(error)}")
        else:
            if answer["end"] == "ended":
                self._take_code(task, answer)
            else:
                task.fail(_refusal(answer, task.job.run))

    def _take_code(self, task: Task, answer: ray_node.Answer) -> None:
        number, host = answer["code"], answer["host"]
        if number == 0:
            task.visible_by = time.monotonic() + ray_node.SEEN
        elif number in (130, -signal.SIGINT):
            task.over = True
        elif number == STOPPED or number < 0 or number > 128:
            how = "was stopped" if number == STOPPED else ending(number if number < 0 else 128 - number)
            self._lose(task, f"its worker on {host} {how}")
        else:
            log = RunDir(task.job.run).log
            last = last_line(log.read_bytes()[-2000:]) if log.exists() else ""
            what = f"the worker on {host} ended with code {number}{f' ({last})' if last else ''}."
            task.fail(RunFailed(what, where=str(log), hint=READ), (host, answer["pid"]))

    def _lose(self, task: Task, why: str) -> None:
        """Has a lost run submitted again, unless it was cancelled or comes no further."""
        run, status = task.job.run, read_status(task.job.run)
        if task.stopped or cancelled(run):
            task.over = True
            return
        reached = (status.done, status.step)
        task.losses = 1 if reached > task.reached else task.losses + 1
        task.reached = max(reached, task.reached)
        task.job = replace(task.job, reached=task.reached)
        again = task.losses <= self.retries
        with suppress(OSError), RunDir(run).log.open("a", encoding="utf-8") as log:
            log.write(f"{now()} lost ({why}){'; it is submitted again' if again else ''}.\n")
        if again:
            task.order = {**task.order, "again": True}
            return
        times = f"{task.losses} times at the same point" if self.retries else "and must not be repeated"
        mark_failed(
            run, RunFailed(f"was lost {times}. The last time: {why}", where=str(RunDir(run).log), hint=READ)
        )
        task.over = True


def _refusal(answer: ray_node.Answer, run: Path) -> MoextendError:
    """Error for a node that did not start the worker."""
    host, where = f"node {answer['host']} of the Ray cluster", str(run)
    if answer["end"] == "unseen":
        return RunFailed(f"{host} cannot read the folder of this run.", where=where, hint=SHARE)
    if answer["end"] == "held":
        what = f"another process still holds this run after {ray_node.HELD:.0f} seconds."
        hint = "The lost worker may still be running. Wait for it or stop it, and run the same command again."
        return RunBusy(what, where=where, hint=hint)
    what = (
        f"{host} has another version of moextend: {answer['differs']}. Scores of two versions are not mixed."
    )
    return RunFailed(what, where=where, hint=INSTALL)
