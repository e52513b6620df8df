"""Removes runs: on request, or where the config changed before anything was trained."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from moextend.errors import SpecError
from moextend.util import files

if TYPE_CHECKING:
    from moextend.bench.run.rundir import RunDir

KEPT = (".lock", "owner.json")
"""Files that hold the run for this process."""


def untrained(run: RunDir) -> bool:
    """Whether no stage of the run holds anything, not even a checkpoint, and no cell after stage 0 was scored."""
    if any(path.is_file() for path in run.folder.glob("stages/**/*")):
        return False
    try:
        return all(stage == 0 for stage, _ in run.cells())
    except SpecError:  # scores that cannot be read may be of a trained stage
        return False


def clear(run: RunDir) -> None:
    """Removes everything from the folder of a run whose lock this process holds."""
    with files.disk_errors(run.folder):
        for path in run.folder.iterdir():
            if path.name in KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def remove(run: RunDir) -> None:
    """Removes the folder of a run; RunConflict where a process is working on it."""
    with run.lock():
        clear(run)
    with files.disk_errors(run.folder):
        shutil.rmtree(run.folder)
