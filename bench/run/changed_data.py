"""Whether the data of a run are those that it has used."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from moextend.bench.data import data_digest
from moextend.bench.run.complete import named_weights
from moextend.bench.run.context import RunContext
from moextend.bench.run.models import stage_name
from moextend.bench.run.revisions import pin_data
from moextend.errors import RunConflict
from moextend.util import files

log = logging.getLogger(__name__)


def refuse_changed_data(context: RunContext) -> None:
    """Records the data of all tasks.

    Data of which no result of the run depends may have changed, such as those with a broken image that was corrected
    since. A training on them that was interrupted starts again.

    Raises:
        RunConflict: data changed that a scored cell, an aligned projector or a learned stage depends on.
    """
    pin_data(context.run, context.tasks, context.workspace)
    known = context.run.facts().data
    now = {
        name: data_names(context, name) for name in context.config.tasks if context.tasks[name].kind != "text"
    }
    changed = [
        (name, split)
        for name, splits in now.items()
        for split, digest in splits.items()
        if known.get(name, {}).get(split, digest) != digest
    ]
    for name, split in changed:
        if _is_used(context, name, split):
            raise RunConflict(
                f"the {split} data of task '{name}' changed since this run began.",
                where=str(context.run.folder),
                hint="Restore the data, use another --runs folder, or remove this one.",
            )
    for name, split in changed:
        log.warning("%s: the %s data of task '%s' changed.", context.run.folder, split, name)
        if split == "train":
            _forget_training(context, name)
    # Row 0 writes the facts that depend on the data again.
    more = {"majority": None} if changed else {}
    context.run.write_facts(data={**known, **now}, **more)


def data_names(context: RunContext, name: str) -> dict[str, str]:
    """Split -> digest of a task's data, for the splits that the run uses."""
    task, found = context.tasks[name], {}
    if name in context.config.stages or name in _aligned(context):
        found["train"] = data_digest(task, "train", context.workspace)
    if name in context.scored:
        found["test"] = data_digest(task, "test", context.workspace)
    return found


def _aligned(context: RunContext) -> list[str]:
    return [align.task for align in context.sequence.alignments]


def _is_used(context: RunContext, name: str, split: str) -> bool:
    """Whether a result of the run depends on these data."""
    cells = context.run.cells()
    if split == "test":
        return any(task == name for _, task in cells)
    if name in _aligned(context) and cells:
        return True
    stages = [index for index, names in enumerate(context.stages, 1) if name in names]
    return any(
        named_weights(_folder(context, index)) is not None or any(stage == index for stage, _ in cells)
        for index in stages
    )


def _folder(context: RunContext, index: int) -> Path:
    return context.run.stage_folder(index, stage_name(context.stages[index - 1]))


def _forget_training(context: RunContext, name: str) -> None:
    """Removes what interrupted trainings on the data of a task wrote."""
    for index, names in enumerate(context.stages, 1):
        folder = _folder(context, index)
        if name in names:
            log.warning("%s: the training on it starts again.", folder)
            files.may_change(folder)
            with files.disk_errors(folder):
                shutil.rmtree(folder)
