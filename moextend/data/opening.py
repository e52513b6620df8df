"""Opens files and hub data sets as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from moextend.data.hub import open_hub
from moextend.data.llava import expand
from moextend.data.table import Table, read_table
from moextend.util.files import stamp


@dataclass(frozen=True)
class Opened:
    """A table and the folder of its images."""

    table: Table
    folder: Path | None
    """Base of relative image paths, besides the folder of their file."""
    files: tuple[Path, ...]


def open_files(files: Sequence[Path], folder: Path | None, cache: Path) -> Opened:
    """Rows of files of one format; `cache`: folder for copies of Parquet and Arrow files."""
    stamps = tuple((path, stamp(path.stat())) for path in files)
    return Opened(_read(stamps, cache), folder, tuple(files))


def open_remote(
    name: str,
    split: str,
    folder: Path | None = None,
    *,
    config: str | None = None,
    revision: str | None = None,
    where: str,
) -> Opened:
    """Rows of a split of a hub data set."""
    remote = open_hub(name, split, config, revision, where=where)
    return Opened(expand(remote), folder, tuple(remote.files()))


@lru_cache(maxsize=8)
def _read(stamps: tuple[tuple[Path, str], ...], cache: Path) -> Table:
    """Table of files, cached in the process until a file changes."""
    return expand(read_table([path for path, _ in stamps], cache))
