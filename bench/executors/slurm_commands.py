"""The commands of Slurm, called with a time-out: they hang while the controller is away."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from moextend.bench.executors.executor import Job, JobState
from moextend.errors import InputError

PATIENCE = 5.0
"""Seconds that a question may take."""
SUBMISSION = 120.0
"""Seconds that a submission may take."""
MANY = 200
"""Jobs a command line."""
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
"""States of squeue that are before a start."""


def check() -> None:
    """Raises InputError if there is no sbatch."""
    if shutil.which("sbatch") is None:
        raise InputError(
            "sbatch is not on the PATH.",
            where="--executor slurm",
            hint="Run the command on a login node of the cluster; --dry-run prints the script.",
        )


def submit(script: str, *, dependency: str = "") -> tuple[str, str]:
    """Submits the script at a path; returns the id of the array and its cluster ("": the only one).

    Raises:
        InputError: there is no sbatch, or it refuses the script; with its own words.
    """
    more = [f"--dependency={dependency}"] if dependency else []
    check()
    try:
        done = _call(["sbatch", "--parsable", *more, script], SUBMISSION)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"sbatch cannot be called ({error}).",
            where="--executor slurm",
            hint="Try again later; sinfo shows the state of the cluster.",
        ) from error
    lines = done.stdout.strip().splitlines()
    found = re.fullmatch(r"(\d+)(?:;(.+))?", lines[-1].strip()) if lines else None
    if done.returncode or not found:
        problem = " ".join(
            (done.stderr.strip() or done.stdout.strip())
            .replace("sbatch: error: ", "")
            .replace("sbatch: ", "")
            .split()
        )
        raise InputError(
            f"sbatch refuses the job: {problem or f'code {done.returncode}'}.".replace("..", "."),
            where="--executor slurm",
            hint="Change the options: --executor-option KEY=VALUE; --dry-run prints the script.",
        )
    return found[1], found[2] or ""


def largest_array() -> int | None:
    """Maximum number of tasks of an array; None if it is not known here."""
    found = re.search(
        r"^MaxArraySize\s*=\s*(\d+)", _answer(["scontrol", "show", "config"]) or "", re.MULTILINE
    )
    return max(1, int(found[1]) - 1) if found else None  # the largest index is smaller than it


def states(jobs: Sequence[Job]) -> dict[str, JobState] | None:
    """Id -> queued or running, of those jobs of one cluster that are in the queue; None if it cannot be asked."""
    arrays = list(dict.fromkeys(job.id.partition("_")[0] for job in jobs))
    found: dict[str, JobState] = {}
    for start in range(0, len(arrays), MANY):
        listed = ",".join(arrays[start : start + MANY])
        command = ["squeue", "--noheader", "--array", "--format=%i|%T", f"--jobs={listed}"]
        answer = _answer([*command, *_cluster(jobs)], unknown="Invalid job id")
        if answer is None:
            return None
        for line in answer.splitlines():
            name, bar, state = line.strip().partition("|")
            if bar:
                found[name] = "queued" if state in WAITING else "running"
    return found


def cancel(jobs: Sequence[Job]) -> None:
    """Removes queued jobs, and signals running ones; what is over already is no error."""
    for start in range(0, len(jobs), MANY):
        ids = [job.id for job in jobs[start : start + MANY]]
        _answer(["scancel", *_cluster(jobs), "--state=PENDING", *ids])
        # To the shell, which passes it on; a plain scancel would end the shell too soon for an orderly stop.
        _answer(["scancel", *_cluster(jobs), "--batch", "--signal=USR1", "--state=RUNNING", *ids])


def _cluster(jobs: Sequence[Job]) -> list[str]:
    return [f"--clusters={jobs[0].address}"] if jobs and jobs[0].address else []


def _answer(command: list[str], unknown: str = "") -> str | None:
    """Output of a command; None if it is missing, slow or fails. "" if it fails with `unknown` in its error."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = _call(command, PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and unknown and unknown in done.stderr:
        return ""
    return None if done.returncode else done.stdout


def _call(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
