"""Whether the data of a run are those that it has used."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.data import data_digest
from moextend.bench.data.digests import FileDigests, media_files
from moextend.bench.data.open import open_table
from moextend.bench.data.source import find_source, is_generated
from moextend.bench.run.complete import named_weights
from moextend.bench.run.context import RunContext
from moextend.bench.run.models import stage_name
from moextend.bench.run.records import RunFacts
from moextend.bench.run.revisions import pin_data
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError, MoextendError, RunConflict
from moextend.util import files

if TYPE_CHECKING:
    from moextend.bench.data.open import SplitName
    from moextend.bench.task import TaskSpec

log = logging.getLogger(__name__)

Digests = dict[tuple[str, str], str | None]
"""(Task as JSON, split) -> digest of its data now; None for those that are not compared."""


def refuse_changed_data(context: RunContext) -> None:
    """Records the data of all tasks.

    Data that an error of the run was about may have been corrected: a file of media that could not be decoded, because
    nothing was computed from it, and other parts as long as no scored cell, aligned projector or learned stage
    depends on these data; a training on them that was interrupted starts again.

    Raises:
        RunConflict: data changed otherwise.
    """
    pin_data(context.run, context.tasks, context.workspace)
    facts = context.run.facts()
    known, broken = facts.data, facts.broken
    now = {
        name: _digests(context, name) for name in context.config.tasks if context.tasks[name].kind != "text"
    }
    changed = [
        (name, split)
        for name, split in _splits(now)
        if known.get(name, {}).get(split, now[name][split]) != now[name][split]
    ]
    others = [each for each in changed if not _is_corrected(context, *each, facts)]
    for name, split in others:
        if split not in broken.get(name, {}) or _is_used(context, name, split):
            raise _conflict(context.run, name, split)
    for name, split in others:
        log.warning("%s: the %s data of task '%s' changed.", context.run.folder, split, name)
        if split == "train":
            _forget_training(context, name)
    # Row 0 writes the facts that depend on the data again.
    more = {"majority": None} if others else {}
    for name, split in changed:
        broken.get(name, {}).pop(split, None)
    context.run.write_facts(data={**known, **now}, broken=broken, **more)


def refuse_other_data(run: RunDir, digests: Digests) -> None:
    """Raises RunConflict if files of data changed that a done run has used.

    Data that cannot be read now are not compared, nor those of runs from a pack. `digests` keeps what was computed.
    """
    known = {} if run.left_out else run.facts().data
    for name, split in _splits({name: known[name] for name in known if name in run.config.tasks}):
        task = run.config.task_spec(name)
        key = (task.model_dump_json(), split)
        if key not in digests:
            digests[key] = _local_digest(task, split, run.config.workspace)
        if digests[key] not in (None, known[name][split]):
            raise _conflict(run, name, split)


def note_broken(context: RunContext, error: MoextendError) -> None:
    """Records the data that an error is about, if it is about some, and the broken file of media."""
    if isinstance(error, InputError) and error.where:
        with suppress(MoextendError, OSError):  # the error itself is more important
            _note_broken(context, error.where)


def _note_broken(context: RunContext, place: str) -> None:
    broken, workspace = context.run.facts().broken, context.workspace
    media = {}
    for name, split in _splits(context.run.facts().data):
        task = context.tasks[name]
        media[name, split] = list(media_files(task, split, workspace))
        if any(place.startswith(str(path)) for path in open_table(task, split, workspace).files):
            broken.setdefault(name, {}).setdefault(split, {})
    path = next((ref.path for refs in media.values() for ref in refs if ref.place == place), None)
    with FileDigests(context.cache) as digests:
        for (name, split), refs in media.items() if path else ():
            found = {str(i): digests.of_medium(ref) for i, ref in enumerate(refs) if ref.path == path}
            if found:
                broken.setdefault(name, {}).setdefault(split, {}).update(found)
    context.run.write_facts(broken=broken)


def _splits(data: Mapping[str, Mapping[str, str]]) -> list[tuple[str, SplitName]]:
    splits: tuple[SplitName, ...] = ("train", "test")
    return [(name, split) for name, known in data.items() for split in splits if split in known]


def _is_corrected(context: RunContext, name: str, split: SplitName, facts: RunFacts) -> bool:
    """Whether data that changed are the same but for files of media that could not be decoded."""
    broken = {int(index): digest for index, digest in facts.broken.get(name, {}).get(split, {}).items()}
    now = data_digest(context.tasks[name], split, context.workspace, instead=broken)
    return bool(broken) and now == facts.data[name][split]


def _local_digest(task: TaskSpec, split: SplitName, workspace: Path) -> str | None:
    """Digest of data in files of the user; None for data of the hub or the generated world, or if they are gone."""
    if task.data is None or is_generated(task):
        return None
    try:
        if find_source(task.data, task.folder(), workspace, where=task.task).hub is not None:
            return None
        return data_digest(task, split, workspace)
    except InputError:
        return None


def _conflict(run: RunDir, name: str, split: str) -> RunConflict:
    return RunConflict(
        f"the {split} data of task '{name}' changed since this run began.",
        where=str(run.folder),
        hint="Restore the data, use another --runs folder, or remove this one.",
    )


def _digests(context: RunContext, name: str) -> dict[str, str]:
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
        if name in names and any(folder.iterdir()):
            log.warning("%s: the training on it starts again.", folder)
            files.may_change(folder)
            with files.disk_errors(folder):
                shutil.rmtree(folder)
