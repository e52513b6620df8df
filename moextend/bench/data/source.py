"""Finds a task's data and splits: generated data, data from the user, files, folders and hub data sets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal, cast

from moextend.bench.task import HAND, Data, TaskSpec, put_by_hand
from moextend.data import source
from moextend.data.source import WHOLE, Source
from moextend.errors import InputError, UnknownName
from moextend.util.files import exists

_PART = re.compile(
    r"^(?P<name>.*?)(?:\[(?P<side>train|test)\])?(?:\[(?P<low>\d{0,3})%?:(?P<high>\d{0,3})%?\])?$", re.DOTALL
)
WORLD = "world:"
"""Prefix of the path of generated data."""


Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
LEAST = 30
"""Test items of a split that is divided by content, if that leaves as many for training."""


@dataclass(frozen=True)
class Part:
    """A split or a part of it: rows with a hash, in percent, from `low` up to `high`."""

    split: str
    low: int = 0
    high: int = 100
    side: Split | None = None
    """Side of the split after it was divided by content; None: it is not divided."""

    @property
    def is_full_split(self) -> bool:
        """Whether it is the full split."""
        return (self.side, self.low, self.high) == (None, 0, 100)

    @property
    def undivided(self) -> str:
        """Its name without percents: `train`, `all[train]`."""
        return self.split if self.side is None else f"{self.split}[{self.side}]"

    def is_apart(self, other: Part) -> bool:
        """Whether it surely shares no row with another part of the same split."""
        if self.side != other.side:
            return None not in (self.side, other.side)
        return self.high <= other.low or other.high <= self.low

    def of(self, rows: int) -> int:
        """About how many of the rows of the split it has."""
        sides = {None: rows, "test": tested(rows), "train": rows - tested(rows)}
        return round(sides[self.side] * (self.high - self.low) / 100)


def tested(items: int) -> int:
    """Number of test items of a split that is divided by content: a tenth, at least `LEAST`, at most half."""
    return min(max(ceil(items / 10), LEAST), items // 2)


def divided(task: TaskSpec) -> str:
    """How the only split of a task's data is divided into training and test items; "" if it is not."""
    if task.data is None or not task.data.test.endswith("[test]"):
        return ""
    return (
        f"divided by content, so that equal data have equal test items wherever they are: a tenth is tested, at least "
        f"{LEAST} items, at most half; what shares a medium or a question stays together"
    )


def parse_split(name: str, *, where: str) -> Part:
    """Parses `test`, a side by content (`all[train]`, `all[test]`), or a part by hashes (`all[:90%]`, `all[90%:]`)."""
    match = _PART.match(name)
    assert match is not None, "the pattern matches every text"
    low, high = int(match["low"] or 0), int(match["high"] or 100)
    if not 0 <= low < high <= 100:
        raise InputError(f"'{name}' is empty.", where=where, hint="Write a part as all[:90%] or all[90%:].")
    return Part(match["name"] or WHOLE, low, high, cast(Split | None, match["side"]))


def find_source(data: Data, base: Path, workspace: Path, *, where: str) -> Source:
    """Data of a task; `base`: base of relative paths. Raises InputError if it does not exist."""
    named = data.located
    if named.startswith(WORLD):
        from moextend.bench.world.data import materialise

        folder = materialise(named.removeprefix(WORLD), workspace / ".cache" / "world")
        files = {path.stem: (path,) for path in sorted(folder.glob("*.parquet"))}
        return Source(named, folder, files)
    path = place(named, base, workspace)
    found = source.locate(named, path, data.config, where=where)
    if found is not None:
        return found
    if named.startswith(HAND):
        raise InputError(
            f"no file or folder {path}.", where=where, hint=data.prepare or "Put the data there."
        )
    raise InputError(
        f"no file or folder '{named}'.",
        where=where,
        hint="Relative paths start at the YAML.",
    )


def is_generated(task: TaskSpec) -> bool:
    """Whether a task's data are generated. Raises UnknownName if the generated world has no such data set."""
    if task.data is None or not task.data.path.startswith(WORLD):
        return False
    from moextend.bench.world.data import check_name

    check_name(task.data.located.removeprefix(WORLD), where=f"{task.path or task.task}: data.path")
    return True


def place(path: str, base: Path, workspace: Path) -> Path:
    """Local path of a task's data; it need not exist."""
    return put_by_hand(path, workspace) or source.place(path, base)


def files_of(found: Source, split: str, *, where: str) -> tuple[Path, ...]:
    """Files of a split of local data. Raises UnknownName, with the existing splits, for another name."""
    if split in found.splits:
        return found.splits[split]
    if found.folder is not None and exists(found.folder / split) and (found.folder / split).is_file():
        return (found.folder / split,)
    if set(found.splits) == {WHOLE}:
        raise InputError(
            f"{found.name} has no splits, so no split '{split}'.",
            where=where,
            hint="Divide it: train: 'all[train]', test: 'all[test]'. Or only score it: train: null, test: all.",
        )
    raise UnknownName("split", split, found.splits, where=f"{where} ({found.name})")
