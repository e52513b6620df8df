"""Runs as tasks of Slurm arrays. Submitting returns; the folders say how the runs go."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moextend.bench.executors import slurm_commands as commands
from moextend.bench.executors.executor import Job, JobState, Options, now, write_job
from moextend.bench.executors.slurm_script import Settings, render
from moextend.bench.run.progress import read_status
from moextend.errors import InputError
from moextend.util import files

FOLDER = ".slurm"
"""Folder for scripts, below that of the runs."""


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
        _refuse_line_breaks([*runs, options.runs.resolve()])
        folder = _new_folder(options.runs)
        arrays = _arrays(runs, settings, folder)
        jobs: list[Job] = []
        after = settings.sbatch.get("dependency", "")
        for array in arrays:
            files.write_text(array.listed, "".join(f"{run}\n" for run in array.runs))
            files.write_text(array.script, array.text)
            try:
                name, cluster = commands.submit(str(array.script), dependency=after)
            except InputError:
                if not jobs:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            submitted = now()
            for number, run in enumerate(array.runs, 1):
                log = "" if "output" in settings.sbatch else str(folder / f"{name}_{number}.out")
                jobs.append(Job(run, "slurm", f"{name}_{number}", submitted, cluster, log))
                write_job(jobs[-1])
            if settings.jobs:
                after = ",".join(filter(None, (settings.sbatch.get("dependency"), f"afterany:{name}")))
        return jobs

    def check(self, options: Options) -> None:
        """Raises InputError if an option is wrong, or there is no Slurm here."""
        Settings.of(options)
        commands.check()

    def describe(self, runs: Sequence[Path], options: Options) -> str:
        """The scripts that `submit` would submit, and their runs as comments."""
        arrays = _arrays(runs, Settings.of(options), _folder(options.runs))
        return "\n".join(
            array.text + f"# {array.listed.name}:\n" + "".join(f"#   {run}\n" for run in array.runs)
            for array in arrays
        )

    def states(self, jobs: Sequence[Job]) -> Mapping[Path, JobState]:
        """See `Executor`. The queue is asked only about runs whose folders leave it open."""
        found: dict[Path, JobState] = {}
        ask: dict[str, list[Job]] = {}
        for job in jobs:
            state = read_status(job.run).state
            if state in ("done", "failed"):
                found[job.run] = "ended"
            elif state == "running":
                found[job.run] = "running"
            else:
                ask.setdefault(job.address, []).append(job)
        for asked in ask.values():
            found |= _in_queue(asked)
        return found

    def cancel(self, jobs: Sequence[Job]) -> None:
        """See `Executor`."""
        for cluster in {job.address for job in jobs}:
            commands.cancel([job for job in jobs if job.address == cluster])


def _in_queue(jobs: Sequence[Job]) -> dict[Path, JobState]:
    """States of jobs of one cluster whose runs neither run nor ended by their folders."""
    queue = commands.states(jobs)
    found: dict[Path, JobState] = {}
    for job in jobs:
        started = read_status(job.run).state != "waiting"  # read again: it may have begun and ended meanwhile
        if queue is None:
            found[job.run] = "ended" if started else "unknown"
        else:
            found[job.run] = queue.get(job.id, "ended" if started else "lost")
    return found


def _folder(runs: Path) -> Path:
    return runs.resolve() / FOLDER / time.strftime("%Y%m%d-%H%M%S")


def _new_folder(runs: Path) -> Path:
    """An empty folder for the scripts of one submission."""
    folder = _folder(runs)
    for number in range(1, 1000):
        with files.disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                folder = folder.with_name(f"{folder.name.partition('_')[0]}_{number}")
    raise InputError(
        "no unused name was found for a folder.", where=str(folder), hint="Try again in a second."
    )


def _refuse_line_breaks(paths: Sequence[Path]) -> None:
    """Raises InputError for a path that the list of runs, or a line of #SBATCH, cannot hold."""
    broken = next((path for path in paths if "\n" in str(path)), None)
    if broken is not None:
        raise InputError(
            "the path contains a line break.", where=str(broken), hint="Use another --runs folder."
        )


def _arrays(runs: Sequence[Path], settings: Settings, folder: Path) -> list[Array]:
    """The runs in arrays that are no larger than the cluster allows."""
    size = min(settings.array_size or len(runs), commands.largest_array() or len(runs))
    parts = [tuple(runs[start : start + size]) for start in range(0, len(runs), size)]
    found = []
    for number, part in enumerate(parts, 1):
        more = f"-{number}" if len(parts) > 1 else ""
        script, listed = folder / f"array{more}.sh", folder / f"runs{more}.txt"
        name = f"moextend-{part[0].parent.name}"
        text = render(settings, script=script, listed=listed, runs=len(part), name=name)
        found.append(Array(script, listed, part, text))
    return found
