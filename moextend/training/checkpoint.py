"""What an unfinished training has on disk: checkpoints, each with a manifest that is written last."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from moextend.errors import InputError
from moextend.util import files

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""Name -> size and digest (XXH3, 128 bits) of every file of a checkpoint."""
BLOCK = 1 << 22
"""Bytes per read."""


def seal(folder: Path) -> None:
    """Writes the manifest of a checkpoint; a checkpoint without it is ignored."""
    found = {path.name: _facts(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    files.write_json(folder / MANIFEST, found)


def last(folder: Path) -> str | None:
    """The newest complete checkpoint; incomplete ones are removed, with a warning in the log."""

    def step(path: Path) -> int:
        number = path.name.rpartition("-")[2]
        return int(number) if number.isdecimal() else -1

    for newest in sorted(folder.glob("checkpoint-*"), key=step, reverse=True):
        problem = _problem(newest)
        if problem is None:
            return str(newest)
        log.warning(
            "%s: is not complete (%s); the training continues from an older one, or from the beginning.",
            newest, problem,
        )  # fmt: skip
        files.may_change(newest)
        if newest.is_dir():
            shutil.rmtree(newest, ignore_errors=True)
        else:
            newest.unlink(missing_ok=True)
    return None


def _problem(folder: Path) -> str | None:
    """Problem of a checkpoint; None if every file is as it was written."""
    try:
        known = dict(files.read_json(folder / MANIFEST))
        wrong = [name for name, facts in known.items() if _facts(folder / name) != facts]
        return f"{wrong[0]} is damaged" if wrong else None if known else f"{MANIFEST} names no file"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except (InputError, TypeError, ValueError):
        return f"{MANIFEST} is damaged"


def _facts(path: Path) -> dict[str, Any]:
    hasher, size = xxh3_128(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            hasher.update(block)
            size += len(block)
    return {"bytes": size, "xxh3": hasher.hexdigest()}
