"""Finds and opens data: files, folders of several layouts, hub data sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from moextend.data.hub import open_hub
from moextend.data.llava import expand
from moextend.data.table import FORMATS, Table, read_table
from moextend.errors import InputError, UnknownName
from moextend.util.files import exists, stamp
from moextend.util.hub_errors import is_name

WHOLE = "all"
"""Name of the only split of a single file."""
_SPLITS = tuple(suffix for suffix, kind in FORMATS.items() if kind != "text")
"""Suffixes of splits in a folder. Text files are excluded: one may be a licence or a list of labels."""
_SHARD = re.compile(r"[-_]\d+(-of-\d+)?$")


@dataclass(frozen=True)
class Source:
    """Data that was found, with the files of every split; a hub data set has no files here."""

    name: str
    """Name in error messages."""
    folder: Path | None
    """Base of relative image paths."""
    splits: Mapping[str, tuple[Path, ...]]
    hub: str | None = None


def locate(name: str, path: Path, config: str | None, *, where: str) -> Source | None:
    """Data with the name `name`: the file or folder `path`, else a hub data set; None if it is neither.

    Args: config: name of one configuration of a data set.
    """
    if exists(path):  # a name that is too long is neither
        if path.is_file():
            return _file(path)
        if path.is_dir():
            return _folder(path, config, where=where)
    return Source(f"hub:{name}", None, {}, hub=name) if like_hub_id(name, path) else None


def place(name: str, base: Path) -> Path:
    """The path `name` relative to `base`; it need not exist."""
    # normalised, because "../x" must resolve even if the base does not exist yet
    return Path(os.path.normpath(base / Path(name).expanduser()))


def like_hub_id(text: str, path: Path) -> bool:
    """Whether `text` can be a hub id: it is `owner/name`, and the folder of `path` does not exist."""
    return "/" in text and not path.parent.is_dir() and is_name(text)


def _file(path: Path) -> Source:
    if path.suffix.lower() not in FORMATS:
        raise InputError("unknown data format.", where=str(path), hint=f"Known: {', '.join(FORMATS)}.")
    return Source(str(path), path.parent, {WHOLE: (path,)})


def _folder(path: Path, config: str | None, *, where: str) -> Source:
    inner = path / config if config else path
    if not inner.is_dir():
        known = [child.name for child in path.iterdir() if child.is_dir()]
        raise UnknownName("config", config or "", known, where=f"{where}: {path}")
    splits = _splits(inner)
    if not splits:
        raise InputError(
            f"{inner} holds no data.",
            where=where,
            hint=f"A split is a file <split>{'|'.join(_SPLITS)}, or a folder with metadata.csv or .jsonl.",
        )
    return Source(str(inner), inner, splits)


def _splits(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Splits of a folder: files by name, with their shards, and folders of images by their metadata."""
    found: dict[str, list[Path]] = {}
    for place in (folder, folder / "data"):
        for path in sorted(place.glob("*")) if place.is_dir() else ():
            if path.is_dir():
                for metadata in sorted(path.glob("metadata.*")):
                    found.setdefault(path.name, []).append(metadata)
            elif path.suffix.lower() in _SPLITS:
                name = WHOLE if path.stem == "metadata" else _SHARD.sub("", path.stem)
                found.setdefault(name, []).append(path)
    return {name: tuple(files) for name, files in found.items()}


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
