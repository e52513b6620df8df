"""The interface of executors, their table, and the record of the job that executes a run.

An executor starts one process ``moextend-worker RUN_FOLDER`` for each run (exit codes: bench/run/worker.py), on
whatever machine sees the folder. How a run went is read from its folder alone: an executor says only what became of
the job, which matters while the folder says nothing yet, or nothing any more.
"""

from __future__ import annotations

import inspect
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from moextend.bench.plugins import Plugins
from moextend.errors import InputError
from moextend.util import lease, lookup
from moextend.util.spec import Record

JobState = Literal["queued", "running", "ended", "lost", "unknown"]
"""State of a job: waiting for its turn; at work; over, so that the folder says how; gone without an end in the folder;
or not known here, because the executor cannot be reached."""
JOB = "job.json"


class Job(Record):
    """`job.json`: the last job that was submitted for a run. No score depends on it."""

    run: Path = Field(exclude=True)
    """Folder of the run."""
    executor: str
    """Name of the executor: local, slurm, ray, or that of a plug-in."""
    id: str
    """Name of the job there: a task of a Slurm array (`1234_5`), the id of a process, ..."""
    submitted: str
    """ISO time of the submission; `now` gives it."""
    log: str = ""
    """File with the output of the scheduler's script; "": none."""


def now() -> str:
    """The time for `Job.submitted`."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def this_process() -> str:
    """`PID@HOST`, the id of a job that ends with this process, or its beginning up to a slash."""
    return f"{os.getpid()}@{socket.gethostname()}"


def is_alive(job: Job) -> bool | None:
    """Whether the process in the id of a job (see `this_process`) is alive; None if that is not known here."""
    pid, _, host = job.id.partition("/")[0].partition("@")
    own = host == socket.gethostname() and pid.isdecimal()
    return lease.life(int(pid)) != "dead" if own else None


def write_job(job: Job) -> None:
    """Writes `job.json` into the folder of the run, atomically."""
    job.write(job.run / JOB)


def read_job(run: Path) -> Job | None:
    """The job of a run; None if it has none, or one that cannot be read: whoever submits next replaces it."""
    with suppress(InputError, OSError):
        found = Job.values_in(run / JOB)
        return Job.parse({**found, "run": run} if isinstance(found, dict) else found, where=str(run / JOB))
    return None


def jobs_of(runs: Sequence[Path]) -> list[Job]:
    """The jobs of those runs that have one."""
    return [job for run in runs if (job := read_job(run)) is not None]


@dataclass(frozen=True)
class Resources:
    """What one run needs; None: not known, so that the executor's own default holds."""

    cpus: int | None = None
    gpus: int | None = None
    memory_gb: float | None = None
    """Main memory in GB (1e9 bytes)."""


COMMON = ("address", "cpus", "gpus", "memory_gb", "setup")
"""Options that the command line reads for every executor."""


@dataclass(frozen=True)
class Options:
    """How runs are submitted."""

    jobs: int | None = None
    """Maximum number of runs at a time; None: the executor's own default."""
    resources: Resources = Resources()
    address: str = ""
    """Address of the cluster; "": the executor's own default."""
    setup: tuple[str, ...] = ()
    """Shell lines before the worker, such as ``module load cuda``, where the executor runs a shell."""
    passed: Mapping[str, str] = field(default_factory=dict)
    """Other options of the command line, for the executor alone. It refuses unknown ones."""
    runs: Path = Path("runs")
    """Folder of the runs. Files of an executor are in a folder below it whose name begins with a dot."""


@runtime_checkable
class Executor(Protocol):
    """Executes runs. An attribute `waits = True` marks one whose runs end with the process that submitted them."""

    def submit(self, runs: Sequence[Path], options: Options) -> list[Job]:
        """Starts or queues one worker for each run, writes their `job.json`, and returns without waiting.

        Args:
            runs: Folders of the runs, absolute.
            options: See `Options`.

        Raises:
            InputError: an option is wrong, or the executor cannot be used here.
        """
        ...

    def states(self, jobs: Sequence[Job]) -> Mapping[Path, JobState]:
        """Run folder -> state of its job; also from another process than the one that submitted it."""
        ...

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Removes queued jobs, and asks running workers to stop (SIGTERM or SIGUSR1: they save their state)."""
        ...


OWN = {
    "local": "moextend.bench.executors.local:LocalExecutor",
    "ray": "moextend.bench.executors.ray_executor:RayExecutor",
    "slurm": "moextend.bench.executors.slurm:SlurmExecutor",
}
"""Executors of the package."""


def _executor_in(value: Any, name: str) -> Executor:
    """Executor of a plug-in: an object, a class without arguments, or a module with the three functions."""
    if isinstance(value, ModuleType) and not isinstance(value, Executor):
        own = [thing for thing in vars(value).values() if getattr(thing, "__module__", "") == value.__name__]
        classes = [thing for thing in own if inspect.isclass(thing) and isinstance(thing, Executor)]
        value = classes[0] if len(classes) == 1 else value
    if inspect.isclass(value):
        try:
            value = value()
        except TypeError as error:
            raise ValueError(f"'{value.__name__}' cannot be made without arguments ({error}).") from error
    if not isinstance(value, Executor):
        raise ValueError("has no functions submit, states and cancel.")
    return value


KNOWN: Plugins[Executor] = Plugins(
    noun="executor",
    folder="executors",
    group="moextend.executors",
    own=lambda: {name: lambda target=target: lookup.load(target)() for name, target in OWN.items()},  # type: ignore[misc]
    take=_executor_in,
)


def find(name: str, workspace: Path | None, *, where: str | None = None) -> Executor:
    """Executor `name`; UnknownName if there is none, InputError if its plug-in is broken."""
    return KNOWN.find(name, workspace, where=where).value


def waits(executor: Executor) -> bool:
    """Whether its runs end with the process that submitted them, so that a command has to wait."""
    return bool(getattr(executor, "waits", False))
