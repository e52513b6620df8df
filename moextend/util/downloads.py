"""Asks the hub what it has, checks downloaded files against the hashes that it states, and removes damaged ones.

huggingface_hub compares sizes only. Files in LFS are kept under the name of their SHA-256 (`blobs/<sha256>`), so their
content can be checked without the network. Each file is read once: its size and time are kept afterwards.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from moextend.errors import MoextendError, RunFailed
from moextend.util import files, hub_errors
from moextend.util.quiet import quiet_loggers

STALE = 3600.0
"""Seconds without a new byte after which an incomplete file belongs to no running download (its time-outs are 10 s)."""
WAIT = 5.0
"""Seconds that the hub has to state what it has."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def ask(name: str, kind: hub_errors.Kind, *, revision: str | None = None, sizes: bool = False) -> Any:
    """What the hub states of a repository: ModelInfo or DatasetInfo of huggingface_hub, whose errors it raises.

    The hub is asked once and has `WAIT` seconds to answer; downloads try for more than a minute.

    Args:
        sizes: also those of the files.
    """
    from huggingface_hub import HfApi

    with quiet_loggers("huggingface_hub"):
        return HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=WAIT, files_metadata=sizes)


def folder_of(name: str, kind: hub_errors.Kind) -> Path:
    """Folder of the downloads of a repository, whether there are any or not."""
    return Path(hub_errors.cache()) / f"{kind}s--{name.replace('/', '--')}"


def remove_damaged(snapshot: Path) -> list[str]:
    """Removes the files of a snapshot whose content differs from what the hub states; returns their names.

    Args: snapshot: folder of a commit in the cache (`models--<owner>--<name>/snapshots/<commit>`).
    """
    large = {path: blob for path in _files(snapshot) if _SHA256.fullmatch((blob := path.resolve()).name)}
    unknown = {path: blob for path, blob in large.items() if not _is_known(blob)}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        right = list(threads.map(_is_right, unknown.values()))
    damaged = [path for path, fine in zip(unknown, right, strict=True) if not fine]
    for path in damaged:
        unknown[path].unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return [str(path.relative_to(snapshot)) for path in damaged]


def damage(found: list[str], *, where: str) -> RunFailed:
    """The error for damaged files that were removed."""
    return RunFailed(
        f"the download is damaged: the SHA-256 of {', '.join(found[:3])} is not the one that the hub states.",
        where=where,
        hint="It was removed from the cache; run the same command again.",
    )


def remove_stale(repository: Path) -> None:
    """Removes what killed downloads left of a repository (`models--<owner>--<name>`): nothing continues such a file."""
    for path in repository.glob("blobs/*.incomplete"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def _files(snapshot: Path) -> Iterator[Path]:
    return (path for path in sorted(snapshot.rglob("*")) if path.is_file())


def _is_right(blob: Path) -> bool:
    """Whether a file's SHA-256 is its name; notes it if it is."""
    before = _stamp(blob)
    if files.sha256(blob) != blob.name:
        return False
    with suppress(MoextendError, OSError):  # a note that cannot be kept costs time only
        files.write_text(_note(blob), before, synced=False)
    return True


def _is_known(blob: Path) -> bool:
    try:
        return _note(blob).read_text(encoding="utf-8") == _stamp(blob)
    except (OSError, ValueError):
        return False


def _stamp(blob: Path) -> str:
    found = blob.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}\n"


def _note(blob: Path) -> Path:
    """File that keeps the size and time of a file that was right."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(home) if home else Path.home() / ".cache"
    return cache / "moextend" / "downloads" / files.digest(str(blob))
