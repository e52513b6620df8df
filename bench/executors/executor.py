"""The interface of executors, and their table.

An executor starts one process ``moextend-worker RUN_FOLDER`` for each run (exit codes: bench/run/worker.py), on
whatever machine sees the folder. How a run went is read from its folder alone: an executor says only what became of
the job, which matters while the folder says nothing yet, or nothing any more.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

from moextend.bench.executors.job import Job, jobs_of, now, read_job, write_job
from moextend.bench.plugins import Plugins
from moextend.util import lookup

__all__ = [
    "KNOWN", "OWN", "Executor", "Job", "JobState", "Options", "Resources", "find", "jobs_of", "now", "read_job",
    "waits", "write_job",
]  # fmt: skip

JobState = Literal["queued", "running", "ended", "lost", "unknown"]
"""State of a job: waiting for its turn; at work; over, so that the folder says how; gone without an end in the folder;
or not known here, because the executor cannot be reached."""


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
    if isinstance(value, ModuleType):
        classes = [
            thing
            for thing in vars(value).values()
            if inspect.isclass(thing) and thing.__module__ == value.__name__ and _complete(thing)
        ]
        value = classes[0] if len(classes) == 1 and not _complete(value) else value
    if inspect.isclass(value):
        try:
            value = value()
        except TypeError as error:
            raise ValueError(f"'{value.__name__}' cannot be made without arguments ({error}).") from error
    if not _complete(value):
        raise ValueError("has no functions submit, states and cancel.")
    executor: Executor = value
    return executor


def _complete(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("submit", "states", "cancel"))


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
