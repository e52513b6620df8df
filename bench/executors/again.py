"""Whether a stopped job is queued again: ``python -m moextend.bench.executors.again RUN EXECUTOR JOB``.

Code 0 if it is; else 1, and the reason is in job.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from moextend.bench.executors.executor import Job, now, read_job, write_job
from moextend.bench.run.progress import CANCELLED, cancelled, read_status
from moextend.errors import MoextendError


def continues(job: Job) -> bool:
    """Whether a job that stopped is queued again, recorded in its `job.json`.

    It is not if the run is done or was cancelled, or if the job has done no more than at its last stop. So a job that
    cannot go on ends by itself, and one that makes progress is never given up, however often it is stopped.
    """
    status = read_status(job.run)
    reached = (status.done, status.step)
    note = ""
    if cancelled(job.run):
        note = CANCELLED
    elif job.reached is not None and reached <= job.reached:
        note = (
            f"stopped twice without progress ({status.done} of {status.units} units, step {status.step}), "
            "so it is not queued again"
        )
    write_job(replace(job, reached=max(reached, job.reached or reached), note=note))
    return not note and status.state != "done"


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    run, executor, name = Path(arguments[0]), arguments[1], arguments[2]
    known = read_job(run) or Job(run, executor, name, now())
    try:
        if continues(replace(known, id=name)):
            return 0
        print(f"{run}: {(read_job(run) or known).note or 'done'}.", file=sys.stderr)
    except MoextendError as error:  # a full disk: no job is queued without a record
        print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
