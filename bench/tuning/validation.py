"""The tasks of a trial: they learn from a part of the training split and are scored on the rest of it.

Both parts are intervals of the hash that assigns rows to parts of a split, as in `data.train: all[:90%]`. So no
validation item is trained on, no medium is on both sides, and no test item is read.
"""

from __future__ import annotations

from pathlib import Path

from moextend.bench.audit.duplicates import overlap
from moextend.bench.data import overlaps
from moextend.bench.data.source import find_source, is_generated, parse_split
from moextend.bench.task import Data, TaskSpec
from moextend.errors import InputError

PERCENT = 10
"""Percent of the training data that is held out."""


def held_out_task(task: TaskSpec, percent: int, workspace: Path) -> TaskSpec:
    """The task with `percent` of its training split as the scored split, and the rest of it for training.

    Raises:
        InputError: its training and test data overlap, or are too small a part of a split.
    """
    where = f"{task.path or task.task}: data"
    assert task.data is not None and task.data.train is not None, "a stage of a sequence"
    if _overlap(task, task.data, workspace, where):
        raise InputError(
            "training and test data overlap, so validation items would be test items.",
            where=where,
            hint="Separate them: train: 'all[train]', test: 'all[test]'.",
        )
    part = parse_split(task.data.train, where=f"{where}.train")
    cut = part.high - max(1, round((part.high - part.low) * percent / 100))
    if cut <= part.low:
        raise InputError(
            f"'{task.data.train}' is too small a part of its split to hold out validation items.",
            where=f"{where}.train",
            hint="Use a part of at least 2%.",
        )
    if found := overlap(task, workspace):
        raise InputError(
            f"{found}, so validation items would be test items.",
            where=where,
            hint="Remove the duplicates: moextend bench audit shows them.",
        )
    train, validation = (f"{part.undivided}[{a}%:{b}%]" for a, b in ((part.low, cut), (cut, part.high)))
    return task.model_copy(update={"data": task.data.model_copy(update={"train": train, "test": validation})})


def _overlap(task: TaskSpec, data: Data, workspace: Path, where: str) -> bool:
    """Whether the training and the test part share rows, as far as it is known without a download."""
    train, test = (
        parse_split(name, where=f"{where}.{key}")
        for key, name in (("train", data.train or ""), ("test", data.test))
    )
    if train.split == test.split:
        return not train.is_apart(test)
    if is_generated(task):
        return False
    local = find_source(data, task.folder(), workspace, where=f"{where}.path").hub is None
    return local and overlaps(task, workspace)
