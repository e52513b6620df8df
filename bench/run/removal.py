"""Removes runs: on request, or if the config changed before any training."""

from __future__ import annotations

import shutil

from moextend.bench.run.liveness import LEASE
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError, SpecError
from moextend.util import files

KEPT = (LEASE, "job.json")
"""The lease of a run, and the record of the job that executes it."""


def untrained(run: RunDir) -> bool:
    """Whether the run has no files of a stage, not even a checkpoint, and no cell after stage 0."""
    if any(path.is_file() for path in run.folder.glob("stages/**/*")):
        return False
    try:
        return all(stage == 0 for stage, _ in run.cells())
    except SpecError:  # scores that cannot be read may be of a trained stage
        return False


def clear(run: RunDir) -> None:
    """Removes everything from the folder of a run; this process must hold its lease."""
    files.may_change(run.folder)
    with files.disk_errors(run.folder):
        for path in run.folder.iterdir():
            if path.name in KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def remove(run: RunDir) -> None:
    """Removes the folder of a run; RunBusy if a process is working on it, InputError if it is a link to a folder."""
    if run.folder.is_symlink():
        raise InputError(
            "is a link to another folder.",
            where=str(run.folder),
            hint="Remove that folder, and the link by hand.",
        )
    with run.lock():
        clear(run)
    with files.disk_errors(run.folder):
        shutil.rmtree(run.folder)
