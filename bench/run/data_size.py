"""Numbers of a task's items before its data is downloaded: from small local files, or what the hub states."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from moextend.bench.data import open_items
from moextend.bench.data.source import Part, is_generated, parse_split, place
from moextend.bench.run.preflight import readable
from moextend.bench.task import HAND, TaskSpec
from moextend.errors import InputError
from moextend.util import hub_errors

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


def items_of(task: TaskSpec, split: Split, workspace: Path) -> int | None:
    """Number of items of a split; None: not known without its data. Nothing but small local files is opened."""
    if task.data is None:
        return None if task.lm_eval is None else task.lm_eval.limit
    name = getattr(task.data, split)
    if name is None:
        return None
    part = parse_split(name, where=f"{task.task}: data.{split}")
    try:
        if is_generated(task):
            if part.split not in SPLITS:
                return None
            return part.of(_generated(task.data.path.partition(":")[2], part.split))
        if place(task.data.path, task.folder(), workspace).exists():
            if readable(task, split, workspace):
                return len(open_items(task, split, workspace, media=False, strict=False))
            return _rows(task, part, workspace)
        if task.data.path.startswith(HAND):
            return None
    except (InputError, OSError):
        return None  # a run says what is wrong with the data
    stated = stated_splits(task.data.path, task.data.config, task.data.revision).get(part.split)
    return None if stated is None else part.of(stated)


def _generated(name: str, split: str) -> int:
    from moextend.bench.world import data, hearing

    if name in hearing.HEARINGS:
        count = {hearing.MATCH: data.MATCHED, hearing.SCENES: data.RECITED}.get(name, data.SOUNDS)
        return count[split] * data.ASKED[split]
    return data.CAPTIONED[split] if name == data.CAPTIONS else data.IMAGES[split] * data.ASKED[split]


def _rows(task: TaskSpec, part: Part, workspace: Path) -> int | None:
    """Rows of local parquet files by their footers; None for other large files."""
    from pyarrow import parquet

    from moextend.bench.data.source import files_of, find_source

    assert task.data is not None
    found = files_of(
        find_source(task.data, task.folder(), workspace, where=task.task), part.split, where=task.task
    )
    if task.data.each or task.data.where or {path.suffix for path in found} != {".parquet"}:
        return None
    rows: int = sum(parquet.read_metadata(path).num_rows for path in found)
    return part.of(rows)


@cache
def stated_splits(name: str, config: str | None, revision: str | None) -> dict[str, int]:
    """Split -> rows, as the card of a hub data set states them; empty if it does not, or offline."""
    try:
        info = hub_errors.ask(name, "dataset", revision=revision)
        card = info.card_data.to_dict() if info.card_data else {}
    except Exception:  # offline, gated, misspelt: the run says which
        return {}
    known = card.get("dataset_info") or []
    known = [known] if isinstance(known, dict) else known
    named = [each for each in known if each.get("config_name", "default") == (config or "default")]
    chosen = named or (known if len(known) == 1 else [])
    splits = chosen[0].get("splits") or [] if chosen else []
    return {str(split["name"]): int(split["num_examples"]) for split in splits if "num_examples" in split}
