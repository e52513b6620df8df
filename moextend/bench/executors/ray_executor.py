"""Runs as tasks of Ray Core: on this machine, or on a cluster whose nodes share the folders of runs and workspace.

A task starts a worker process and returns its exit code (ray_node.py). Ray itself submits a lost one again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moextend.bench.executors import ray_node
from moextend.bench.executors.executor import (
    COMMON,
    Job,
    JobState,
    Options,
    Resources,
    is_alive,
    now,
    this_process,
    write_job,
)
from moextend.bench.executors.ray_node import Lost, Refused
from moextend.bench.run.launch import cores
from moextend.bench.run.progress import EXECUTOR, STOPPED, cancelled, mark_failed, read_status
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError, MoextendError, RunFailed, UnknownName, last_line, short
from moextend.util.environment import code

RETRIES = 3
"""Times that a lost run is submitted again."""
READ = "Read the log; the same command continues where the run stopped."
VARIABLES = (
    "HF_HUB_OFFLINE", "MOEXTEND_ALLOW_CODE", "MOEXTEND_DEBUG", "MOEXTEND_LEASE_SECONDS",
    "MOEXTEND_MICRO_BATCH", "OMP_NUM_THREADS",
)  # fmt: skip
"""Environment variables that workers get from here; all others are those of their node."""


ADDRESS = "RAY_ADDRESS"
"""Environment variable of Ray with the address of a cluster."""
STORE = 100 * 2**20
"""Bytes of the object store of an own cluster: tasks exchange a few lines."""
ANSWER = 10.0
"""Seconds in which the head of a cluster must answer. Ray itself tries for a quarter of an hour."""
Needs = Mapping[str, float]
"""What a run needs in Ray's names: CPU, GPU, and memory in bytes."""


def connect(given: str) -> tuple[str, bool]:
    """Joins the cluster at `given`, or at RAY_ADDRESS, or starts one with the cores and GPUs of this machine.

    Args:
        given: `HOST:PORT` of the head, or `auto` for the cluster that runs on this machine; "": see above.

    Returns:
        its address, "" for an own one, and whether this process made the connection, which it then ends.

    Raises:
        InputError: the cluster cannot be joined.
        RunFailed: one could not be started.
    """
    import ray

    if ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address), False
    address = address_of(given)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports nothing to others without being asked
    _silence()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        own = {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": STORE}
        try:
            ray.init("local", **own, **quiet)
        except Exception as error:  # also a plain one, if its processes have not started after 30 seconds
            ray.shutdown()
            raise RunFailed(
                f"Ray could not start a cluster on this machine: {first_line(error)}",
                where="--executor ray",
                hint="Try again if the machine is busy. Its folder (RAY_TMPDIR) must have a short path.",
            ) from error
        return "", True
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdecimal():  # not auto, or another form that Ray knows
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
        ray.init(address, **quiet)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot be joined: {first_line(error)}",
            where=f"address {address}",
            hint="Start it with `ray start --head` and the versions of Python and Ray here, and name HOST:PORT of its "
            "head (6379 by default).",
        ) from error
    return address, True


def first_line(error: Exception) -> str:
    """The first line of an error of Ray."""
    return short(next(iter(str(error).strip().splitlines()), type(error).__name__), 200)


def address_of(given: str) -> str:
    """Address of the cluster, "": none, so that one is started; InputError for one of Ray Client."""
    found = given or os.environ.get(ADDRESS, "")
    if found.startswith("ray://"):
        raise InputError(
            "is an address of Ray Client, whose driver may have no access to the folders of the runs.",
            where=f"address {found}",
            hint="Run the command on a machine of the cluster, with HOST:PORT of its head or auto.",
        )
    return "" if found == "local" else found


def _silence() -> None:
    """Has Ray write nothing to this process's output; its own logs have it all."""
    from ray._private import worker

    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray prints what raylets report to stdout, where the results are, whatever its options say. Tested with 2.60.0.
    setattr(worker, "print_to_stdstream", lambda data, ignore_prefix: None)  # noqa: B010


def needs_of(resources: Resources, *, grows: bool) -> Needs:
    """Resources of a run in Ray's names: by default one CPU, and one GPU where the cluster has GPUs.

    Raises:
        InputError: this machine has less, so that a run would wait for ever; not of a cluster, which may grow.
    """
    import ray

    known = ray.cluster_resources()
    gpus = (1 if known.get("GPU") else 0) if resources.gpus is None else resources.gpus
    needs = {"CPU": float(1 if resources.cpus is None else resources.cpus), "GPU": float(gpus)}
    if resources.memory_gb is not None:
        needs["memory"] = resources.memory_gb * 1e9
    for name, wanted in needs.items() if not grows else ():
        if known.get(name, 0) < wanted:
            raise InputError(
                f"a run needs {wanted:,.0f} {name}, and this machine has {known.get(name, 0):,.0f}.",
                where="--executor ray",
                hint="Ask for less (--executor-option cpus=1, gpus=0, memory_gb=4).",
            )
    return needs


@dataclass
class Task:
    """A run, and its current attempt."""

    job: Job
    order: ray_node.Order
    reference: Any = None
    """Ray's reference to the answer; None: the run waits for its turn, or is over."""
    stopped: bool = False
    """Whether it was cancelled."""
    over: bool = False
    visible_by: float = 0.0
    """Time (monotonic) at which the end of the run must be visible here; 0: it has not ended well."""

    def fail(self, error: MoextendError) -> None:
        """Ends the run. The error that its worker recorded comes first; a run of another process stays as it is."""
        self.over = True
        if read_status(self.job.run).state != "failed":
            mark_failed(self.job.run, error)

    def look(self) -> None:
        """Ends the run once its end is visible here."""
        if read_status(self.job.run).state == "done":
            self.over = True
        elif time.monotonic() > self.visible_by:
            what = "its worker finished, but its results are not in this folder."
            self.fail(RunFailed(what, where=str(self.job.run), hint=ray_node.NODES))


class RayExecutor:
    """Executes runs as tasks of Ray. `states` has to be called regularly: it submits what waits."""

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
            raise UnknownName("option of executor ray", name, COMMON, where="--executor-option")
        address_of(options.address)
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
        address, self.joined = connect(options.address)
        try:
            needs = needs_of(options.resources, grows=bool(address))
            # Nodes import the function by its name: no code is sent. SPREAD: runs share nodes only if they have to.
            self.function = ray.remote(
                max_retries=RETRIES, retry_exceptions=[ray_node.Lost], scheduling_strategy="SPREAD"
            )(ray_node.work).options(num_cpus=needs["CPU"], num_gpus=needs["GPU"], memory=needs.get("memory"))
            self.most = options.jobs or len(runs)  # else Ray's resources limit them
            version = code()
            self.tasks = {
                run: Task(
                    Job(run=run, executor="ray", id=this_process(), submitted=now()),
                    self._order(run, options, version),
                )
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
            environment={**found, EXECUTOR: "ray"},
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
            update = {"id": f"{this_process()}/{name}", "submitted": now()}
            task.job = task.job.model_copy(update=update)
            write_job(task.job)

    def _take(self, task: Task, reference: Any) -> None:
        """Decides what follows from the end of a task."""
        import ray
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        run, log = task.job.run, RunDir(task.job.run).log
        try:
            number = ray.get(reference)
        except TaskCancelledError:
            task.over = True
        except RayTaskError as error:
            if isinstance(error.cause, Lost):
                what = f"was lost {RETRIES + 1} times. The last time: {error.cause}."
                task.fail(RunFailed(what, where=str(log), hint=READ))
            else:
                refused = isinstance(error.cause, Refused)
                why, hint = (
                    error.cause.args if refused else (str(error).strip().rpartition("\n")[2], ray_node.NODES)
                )
                task.fail(RunFailed(f"{why}.", where=str(run), hint=hint))
        except RayError as error:  # the process that waited for the worker is gone, or its node
            if task.stopped or cancelled(run):
                task.over = True
            else:
                what = f"was lost: {type(error).__name__}: {first_line(error)}"
                task.fail(RunFailed(what, where=str(log), hint=READ))
        else:
            if number == 0:
                task.visible_by = time.monotonic() + ray_node.SEEN
            elif number in (STOPPED, 130):
                task.over = True
            else:
                # Another machine wrote it, and it may not be visible here yet.
                last = last_line(log.read_bytes()[-2000:]) if log.exists() else ""
                what = f"the worker ended with code {number}{f' ({last})' if last else ''}."
                task.fail(RunFailed(what, where=str(log), hint=READ))
