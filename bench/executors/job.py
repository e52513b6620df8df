"""`job.json`: the job that executes a run, written by whoever submitted it and read on any machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moextend.errors import InputError
from moextend.util import lease
from moextend.util.spec import Record

JOB = "job.json"


class JobRecord(Record):
    """`job.json`: the last job that was submitted for a run. No score depends on it."""

    executor: str
    """Name of the executor: local, slurm, ray, or that of a plug-in."""
    id: str
    """Name of the job there: a task of a Slurm array (`1234_5`), the id of a process, ..."""
    submitted: str
    """Time of the submission."""
    address: str = ""
    """Address of the cluster; "": the one that the machine's own commands reach."""
    log: str = ""
    """File with the output of the scheduler's script; "": none."""
    reached: list[int] | None = None
    """Units and steps that were done when the job stopped last. null: it never stopped."""
    note: str = ""
    """Why it is not continued; "": no reason is known."""


@dataclass(frozen=True)
class Job:
    """A run that was given to an executor."""

    run: Path
    """Folder of the run."""
    executor: str
    """Name of the executor."""
    id: str
    """Name of the job in the executor's own words."""
    submitted: str
    """ISO time of the submission; `now` gives it."""
    address: str = ""
    """Address of the cluster; "": the one that the machine's own commands reach."""
    log: str = ""
    """File with the output of the scheduler's script; "": none."""
    reached: tuple[int, ...] | None = None
    """Units and steps that were done when the job stopped last; None: it never stopped."""
    note: str = ""
    """Why it is not continued; "": no reason is known."""


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
    reached = None if job.reached is None else list(job.reached)
    JobRecord(
        executor=job.executor, id=job.id, submitted=job.submitted, address=job.address, log=job.log,
        reached=reached, note=job.note,
    ).write(job.run / JOB)  # fmt: skip


def read_job(run: Path) -> Job | None:
    """The job of a run; None if it has none, or one that cannot be read: whoever submits next replaces it."""
    found: JobRecord | None = None
    with suppress(InputError, OSError):
        found = JobRecord.read(run / JOB)
    if found is None:
        return None
    reached = None if found.reached is None else tuple(found.reached)
    return Job(run, found.executor, found.id, found.submitted, found.address, found.log, reached, found.note)


def jobs_of(runs: Sequence[Path]) -> list[Job]:
    """The jobs of those runs that have one."""
    return [job for run in runs if (job := read_job(run)) is not None]
