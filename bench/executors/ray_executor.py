"""Runs as tasks of Ray Core: on this machine, or on a cluster whose nodes share the folders of runs and workspace.

A task starts a worker process and returns its exit code (ray_node.py); ray_grid.py decides what follows from it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moextend.bench.executors import ray_cluster, ray_node
from moextend.bench.executors.executor import COMMON, Job, JobState, Options, now, write_job
from moextend.bench.executors.job import is_alive, this_process
from moextend.bench.executors.ray_cluster import Cluster, Needs
from moextend.bench.run.cancelling import EXECUTOR, cancelled
from moextend.bench.run.progress import mark_failed, read_status
from moextend.bench.run.records import State
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.worker import STOPPED
from moextend.errors import InputError, MoextendError, RunBusy, RunFailed, UnknownName, last_line, short
from moextend.util.environment import code

RETRIES = 3
"""Times that a lost run is submitted again without having come further."""
READ = "Read the log; the same command continues where the run stopped."
INSTALL = "Install the same moextend on every node, with the dependencies of this machine."
SHARE = "The folders of runs and workspace must be on a file system that all nodes share, at the same path."
INTERRUPTED = (130, -signal.SIGINT)


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


@dataclass
class Task:
    """A run, and its current attempt."""

    job: Job
    order: ray_node.Order
    needs: Needs
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


class Grid:
    """The runs of a submission."""

    def __init__(self, cluster: Cluster, tasks: Sequence[Task], *, most: int | None, retries: int) -> None:
        """Args: most: runs that are given to Ray at a time; None: all, so that its resources limit them."""
        import ray

        self.cluster, self.retries, self.most = cluster, retries, most or len(tasks)
        self.tasks = {task.job.run: task for task in tasks}
        self.closed = False
        self.owner = this_process()
        """This process, with which all runs end; ids of jobs begin with it."""

        # Nodes import the function by its name: no code is sent. SPREAD: runs share nodes only if they have to.
        self.function = ray.remote(max_retries=0, scheduling_strategy="SPREAD")(ray_node.work)

    def begin(self) -> None:
        """Records the jobs of all runs, and submits the first ones."""
        for task in self.tasks.values():
            task.job = replace(task.job, id=self.owner)
            write_job(task.job)
        self._fill()

    def poll(self) -> None:
        """Takes in what ended, and submits what waits. The connection is closed after the last run."""
        import ray

        going = {task.reference: task for task in self.tasks.values() if task.reference is not None}
        # `bench cancel` in another process: a worker that runs finds the request itself.
        asked = [task.job.run for task in going.values() if cancelled(task.job.run)]
        self.cancel(run for run in asked if read_status(run).state != "running")
        ended, _ = ray.wait(list(going), num_returns=len(going), timeout=0) if going else ([], [])
        for reference in ended:
            going[reference].reference = None
            self._take(going[reference], reference)
        for task in self.tasks.values():
            if task.visible_by and not task.over:
                _look(task)
        self._fill()
        if all(task.over for task in self.tasks.values()):
            self.closed = True
            self.cluster.close()

    def cancel(self, runs: Iterable[Path]) -> None:
        """Forgets runs that wait, and interrupts the tasks of the others, which stop their workers in order."""
        import ray

        for run in runs:
            task = self.tasks.get(run)
            if task is None or task.over or task.stopped:  # a second interrupt would break off the saving
                continue
            task.stopped = True
            if task.reference is None:
                task.over = True
            else:
                ray.cancel(task.reference, force=False, recursive=False)

    def _fill(self) -> None:
        going = sum(task.reference is not None for task in self.tasks.values())
        for task in self.tasks.values():  # `bench cancel`, in whatever process
            task.over |= task.reference is None and not task.visible_by and cancelled(task.job.run)
        waiting = [t for t in self.tasks.values() if t.reference is None and not t.over and not t.visible_by]
        for task in waiting[: self.most - going]:
            cpus, gpus, memory = (task.needs.get(name) for name in ("CPU", "GPU", "memory"))
            wanted = self.function.options(num_cpus=cpus, num_gpus=gpus, memory=memory)
            task.reference = wanted.remote(task.order)
            name = task.reference.task_id().hex()
            task.job = replace(task.job, id=f"{self.owner}/{name}", submitted=now())
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
            _fail(task, RunFailed(f"{_last_line(error)}.", where=str(task.job.run), hint=INSTALL))
        except RayError as error:  # the process that waited for the worker is gone, or its node
            self._lose(task, f"{type(error).__name__}: {_first_line(error)}")
        else:
            if answer["end"] == "ended":
                self._take_code(task, answer)
            elif answer["end"] == "differs" and not ray_node.difference(known := code(), answer["found"]):
                task.order = {**task.order, "code": known}  # a shared checkout has moved on, here too
            else:
                _fail(task, _refusal(answer, task.job.run))

    def _take_code(self, task: Task, answer: ray_node.Answer) -> None:
        number, host = answer["code"] or 0, answer["host"]
        if number == 0:
            task.visible_by = time.monotonic() + ray_node.SEEN
        elif number in INTERRUPTED:
            task.over = True
        elif number == STOPPED or number < 0 or number > 128:
            self._lose(task, f"its worker on {host} {_ending(number)}")
        else:
            log = RunDir(task.job.run).log
            last = last_line(log.read_bytes()[-2000:]) if log.exists() else ""
            what = f"the worker on {host} ended with code {number}{f' ({last})' if last else ''}."
            _fail(task, RunFailed(what, where=str(log), hint=READ), (host, answer["pid"]))

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
        if task.losses <= self.retries:
            _note(run, f"lost ({why}); it is submitted again.")
            task.order = {**task.order, "again": True}
            return
        times = f"{task.losses} times at the same point" if self.retries else "and must not be repeated"
        error = RunFailed(f"was lost {times}. The last time: {why}", where=str(RunDir(run).log), hint=READ)
        _note(run, f"lost ({why}).")
        mark_failed(run, error)
        task.over = True


def _look(task: Task) -> None:
    """Ends a run once its end is visible here."""
    run = task.job.run
    if read_status(run).state == "done":
        task.over = True
    elif time.monotonic() > task.visible_by:
        what = "its worker finished, but its results are not in this folder."
        _fail(task, RunFailed(what, where=str(run), hint=SHARE))


def _fail(task: Task, error: MoextendError, worker: tuple[str, int] | None = None) -> None:
    """Ends a run. The error that its worker recorded comes first; a run of another process stays as it is."""
    task.over = True
    status = read_status(task.job.run)
    if status.state == "running" and (status.host, status.pid) != worker:
        write_job(replace(task.job, note=str(error)))
    elif status.state != "failed":
        mark_failed(task.job.run, error)


def _refusal(answer: ray_node.Answer, run: Path) -> MoextendError:
    """Error for a node that did not start the worker."""
    host = f"node {answer['host']} of the Ray cluster"
    if answer["end"] == "unseen":
        return RunFailed(f"{host} cannot read the folder of this run.", where=str(run), hint=SHARE)
    if answer["end"] == "held":
        return RunBusy(
            f"another process still holds this run after {ray_node.HELD:.0f} seconds.",
            where=str(run),
            hint="The lost worker may still be running. Wait for it or stop it, and run the same command again.",
        )
    differs = ray_node.difference(code(), answer["found"])
    what = f"{host} has another version of moextend: {differs}. Scores of two versions are not mixed."
    return RunFailed(what, where=str(run), hint=INSTALL)


def _note(run: Path, what: str) -> None:
    # A disk that has no room for the log is no reason to stop.
    with suppress(OSError), RunDir(run).log.open("a", encoding="utf-8") as log:
        log.write(f"{now()} {what}\n")


def _ending(number: int) -> str:
    if number == STOPPED:
        return "was stopped"
    number = -number if number < 0 else number - 128
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"ended with code {number + 128}"


def _first_line(error: Exception) -> str:
    return short(next(iter(str(error).strip().splitlines()), ""), 200)


def _last_line(text: object) -> str:
    return str(text).strip().rpartition("\n")[2]


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
