"""Runs as tasks of Slurm arrays. Submitting returns; the folders say how the runs go."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moextend.bench.executors.executor import Job, JobState, Options, now, write_job
from moextend.bench.executors.slurm_script import Settings, render
from moextend.bench.run.progress import read_status
from moextend.errors import InputError
from moextend.util import files

PATIENCE = 5.0
"""Seconds that a question may take."""
SUBMISSION = 120.0
"""Seconds that a submission may take."""
MANY = 200
"""Jobs a command line."""
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
"""States of squeue that are before a start."""


FOLDER = ".slurm"
"""Folder for scripts, below that of the runs."""


def check() -> None:
    """Raises InputError if there is no sbatch."""
    if shutil.which("sbatch") is None:
        raise _refused(
            "sbatch is not on the PATH.",
            "Run the command on a login node of the cluster; --dry-run prints the script.",
        )


def submit(script: str, *, dependency: str = "") -> str:
    """Submits the script at a path; returns the id of the array.

    Raises:
        InputError: there is no sbatch, or it refuses the script; with its own words.
    """
    more = [f"--dependency={dependency}"] if dependency else []
    check()
    try:
        done = _call(["sbatch", "--parsable", *more, script], SUBMISSION)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused(f"sbatch cannot be called ({error}).", "Try again later.") from error
    lines = done.stdout.strip().splitlines()
    found = re.fullmatch(r"(\d+)(?:;.+)?", lines[-1].strip()) if lines else None
    if done.returncode or not found:
        words = " ".join(re.sub("sbatch: (error: )?", "", done.stderr.strip() or done.stdout).split()).rstrip(
            "."
        )
        raise _refused(
            f"sbatch refuses the job: {words or f'code {done.returncode}'}.",
            "Change the options: --executor-option KEY=VALUE; --dry-run prints the script.",
        )
    return found[1]


def _refused(what: str, hint: str) -> InputError:
    return InputError(what, where="--executor slurm", hint=hint)


def largest_array() -> int | None:
    """Maximum number of tasks of an array; None if it is not known here."""
    found = re.search(
        r"^MaxArraySize\s*=\s*(\d+)", _answer(["scontrol", "show", "config"]) or "", re.MULTILINE
    )
    return max(1, int(found[1]) - 1) if found else None  # the largest index is smaller than it


def states(jobs: Sequence[Job]) -> dict[str, JobState] | None:
    """Id -> queued or running, of those jobs that are in the queue; None if it cannot be asked."""
    arrays = list(dict.fromkeys(job.id.partition("_")[0] for job in jobs))
    found: dict[str, JobState] = {}
    for start in range(0, len(arrays), MANY):
        listed = ",".join(arrays[start : start + MANY])
        command = ["squeue", "--noheader", "--array", "--format=%i|%T", f"--jobs={listed}"]
        answer = _answer(command, unknown="Invalid job id")
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
        _answer(["scancel", "--state=PENDING", *ids])
        # To the shell, which passes it on; a plain scancel would end the shell too soon for an orderly stop.
        _answer(["scancel", "--batch", "--signal=USR1", "--state=RUNNING", *ids])


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


@dataclass(frozen=True)
class Array:
    """A script and its runs."""

    script: Path
    listed: Path
    runs: tuple[Path, ...]
    text: str


class SlurmExecutor:
    """Executes each run as a task of an array; `Options.jobs` is the throttle (%N)."""

    def submit(self, runs: Sequence[Path], options: Options) -> list[Job]:
        """See `Executor`. With a throttle, several arrays run one after the other."""
        settings = Settings.of(options)
        folder = options.runs.resolve() / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        arrays = _arrays(runs, settings, folder)
        with files.disk_errors(folder):
            folder.mkdir(parents=True)
        jobs: list[Job] = []
        after = settings.sbatch.get("dependency", "")
        for array in arrays:
            files.write_text(array.listed, "".join(f"{run}\n" for run in array.runs))
            files.write_text(array.script, array.text)
            try:
                name = submit(str(array.script), dependency=after)
            except InputError:
                if not jobs:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            submitted = now()
            for number, run in enumerate(array.runs, 1):
                log = "" if "output" in settings.sbatch else str(folder / f"{name}_{number}.out")
                jobs.append(
                    Job(run=run, executor="slurm", id=f"{name}_{number}", submitted=submitted, log=log)
                )
                write_job(jobs[-1])
            if settings.jobs:
                after = ",".join(filter(None, (settings.sbatch.get("dependency"), f"afterany:{name}")))
        return jobs

    def check(self, options: Options) -> None:
        """Raises InputError if an option is wrong, or there is no Slurm here."""
        Settings.of(options)
        check()

    def describe(self, runs: Sequence[Path], options: Options) -> str:
        """The scripts that `submit` would submit, and their runs as comments."""
        arrays = _arrays(runs, Settings.of(options), options.runs.resolve() / FOLDER / "TIME")
        return "\n".join(
            array.text + f"# {array.listed.name}:\n" + "".join(f"#   {run}\n" for run in array.runs)
            for array in arrays
        )

    def states(self, jobs: Sequence[Job]) -> Mapping[Path, JobState]:
        """See `Executor`. The queue is asked only about runs whose folders leave it open."""
        found: dict[Path, JobState] = {}
        ask: list[Job] = []
        for job in jobs:
            state = read_status(job.run).state
            if state in ("done", "failed"):
                found[job.run] = "ended"
            elif state == "running":
                found[job.run] = "running"
            else:
                ask.append(job)
        return found | _in_queue(ask)

    def cancel(self, jobs: Sequence[Job]) -> None:
        """See `Executor`."""
        cancel(jobs)


def _in_queue(jobs: Sequence[Job]) -> dict[Path, JobState]:
    """States of jobs whose runs neither run nor ended by their folders."""
    queue = states(jobs) if jobs else {}
    found: dict[Path, JobState] = {}
    for job in jobs:
        started = read_status(job.run).state != "waiting"  # read again: it may have begun and ended meanwhile
        if queue is None:
            found[job.run] = "ended" if started else "unknown"
        else:
            found[job.run] = queue.get(job.id, "ended" if started else "lost")
    return found


def _arrays(runs: Sequence[Path], settings: Settings, folder: Path) -> list[Array]:
    """The runs in arrays that are no larger than the cluster allows."""
    size = min(len(runs), largest_array() or len(runs))
    parts = [tuple(runs[start : start + size]) for start in range(0, len(runs), size)]
    found = []
    for number, part in enumerate(parts, 1):
        more = f"-{number}" if len(parts) > 1 else ""
        script, listed = folder / f"array{more}.sh", folder / f"runs{more}.txt"
        name = f"moextend-{part[0].parent.name}"
        text = render(settings, script=script, listed=listed, runs=len(part), name=name)
        found.append(Array(script, listed, part, text))
    return found
