"""Digests of data, for the keys of results that were computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from moextend.bench.data.open import Items, Opened, SplitName, open_items, open_table
from moextend.bench.data.source import find_source
from moextend.bench.task import TaskSpec
from moextend.data.digests import FileDigests
from moextend.data.examples import several
from moextend.data.hub import commit_of
from moextend.data.media import MediaRef
from moextend.data.selections import Each, Matching
from moextend.data.table import ArrowTable, Table
from moextend.errors import InputError
from moextend.util.files import digest


def data_digest(
    task: TaskSpec, split: SplitName, workspace: Path, *, instead: Mapping[int, str] | None = None
) -> str:
    """Digest of a split (sixteen hex digits): its files, and the files of media that they name.

    `instead`: index in `media_files` -> digest to take instead of its own.
    """
    opened = open_table(task, split, workspace)
    with FileDigests(workspace / ".cache") as known:
        files = [known.of(path) for path in opened.files]
        media = [
            known.of_medium(ref) for ref in _media_files(opened, open_items(task, split, workspace), task)
        ]
    for index, other in (instead or {}).items():
        if index < len(media):
            media[index] = other
    part = [opened.part.low, opened.part.high, *([opened.part.side] if opened.part.side else [])]
    where = task.data.model_dump(include={"where"}) if task.data else {}  # left out while unset
    return digest({"files": files, "images": media, "part": part, **where})


def media_files(task: TaskSpec, split: SplitName, workspace: Path) -> Iterator[MediaRef]:
    """Media of a split in files of their own, which may be replaced, row by row; none where Parquet contains them."""
    return _media_files(open_table(task, split, workspace), open_items(task, split, workspace), task)


def hub_revision(task: TaskSpec, workspace: Path) -> str | None:
    """Commit of the opened hub data set of a task; None for other data."""
    if task.data is None:
        return None
    splits: tuple[SplitName, ...] = ("test", "train")  # a task that only aligns may have no test split
    for split in splits:
        with suppress(InputError):  # scoring or training reports this error
            if find_source(task.data, task.folder(), workspace, where="data.path").hub is None:
                return None
            return commit_of(open_table(task, split, workspace).files)
    return None


def _media_files(opened: Opened, items: Items, task: TaskSpec) -> Iterator[MediaRef]:
    return iter(()) if _holds_media(opened, task) else items.media_refs()


def _holds_media(opened: Opened, task: TaskSpec) -> bool:
    """Whether the files of the rows contain all media."""
    table: Table = opened.table
    while isinstance(table, Each | Matching):
        table = table.table
    columns = [
        name for column in task.columns.by_modality.values() for name in several(column, table.columns)
    ]
    return not columns or (isinstance(table, ArrowTable) and all(map(table.holds_bytes, columns)))
