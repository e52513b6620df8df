"""What an unfinished training has on disk: checkpoints, each with a manifest that is written last."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from moextend.errors import InputError
from moextend.util import files

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""Name -> SHA-256 of every file of a checkpoint."""


def seal(folder: Path) -> None:
    """Writes the manifest of a checkpoint; a checkpoint without it is ignored."""
    files.write_json(folder / MANIFEST, _digests(folder))


def last(folder: Path) -> str | None:
    """The newest complete checkpoint; incomplete ones are removed, with a warning in the log."""

    def step(path: Path) -> int:
        number = path.name.rpartition("-")[2]
        return int(number) if number.isdecimal() else -1

    for newest in sorted(folder.glob("checkpoint-*/"), key=step, reverse=True):
        if _is_complete(newest):
            return str(newest)
        log.warning(
            "%s: is not complete; the training continues from an older one, or from the beginning.", newest
        )
        files.may_change(newest)
        shutil.rmtree(newest, ignore_errors=True)
    return None


def _is_complete(folder: Path) -> bool:
    """Whether every file is as it was written."""
    try:
        return bool(files.read_json(folder / MANIFEST) == _digests(folder))
    except (OSError, InputError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: files.sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
