"""Whether the data of a run are those that it has used."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.data import data_digest
from moextend.bench.data.digests import media_files
from moextend.bench.data.open import open_table
from moextend.bench.run.complete import named_weights
from moextend.bench.run.context import RunContext
from moextend.bench.run.models import stage_name
from moextend.bench.run.provenance import data_conflict, splits_of
from moextend.bench.run.revisions import pin_data
from moextend.bench.run.rundir import changed_since
from moextend.bench.sequence import memory_texts
from moextend.data.digests import FileDigests
from moextend.errors import InputError, MoextendError
from moextend.util import files

if TYPE_CHECKING:
    from moextend.bench.data.open import SplitName

log = logging.getLogger(__name__)


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
    generic = files.digest(memory_texts(context.sequence.memory_file()))
    if facts.generic not in (None, generic) and _has_stage(context):
        raise changed_since(context.run, "the file of generic text (memory of the sequence)")
    changed = [
        (name, split)
        for name, split in splits_of(now)
        if known.get(name, {}).get(split, now[name][split]) != now[name][split]
    ]
    others = []
    for name, split in changed:
        media = broken.get(name, {}).pop(split, None)
        if media and _is_corrected(context, name, split, media, known[name][split]):
            continue
        if media is None or _is_used(context, name, split):
            raise data_conflict(context.run, name, split)
        others.append((name, split))
    for name, split in others:
        log.warning("%s: the %s data of task '%s' changed.", context.run.folder, split, name)
        if split == "train":
            _forget_training(context, name)
    # Row 0 writes the facts that depend on the data again.
    more = {"majority": None} if others else {}
    context.run.write_facts(data={**known, **now}, generic=generic, broken=broken, **more)


def note_broken(context: RunContext, error: MoextendError) -> None:
    """Records the data that an error is about, if it is about some, and the broken file of media."""
    if isinstance(error, InputError) and error.where:
        with suppress(MoextendError, OSError):  # the error itself is more important
            _note_broken(context, error.where)


def _note_broken(context: RunContext, place: str) -> None:
    broken, workspace = context.run.facts().broken, context.workspace
    media = {}
    for name, split in splits_of(context.run.facts().data):
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


def _is_corrected(
    context: RunContext, name: str, split: SplitName, media: Mapping[str, str], known: str
) -> bool:
    """Whether data have the digest `known` with the broken files of media (index -> digest) put back."""
    instead = {int(index): digest for index, digest in media.items()}
    return data_digest(context.tasks[name], split, context.workspace, instead=instead) == known


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


def _has_stage(context: RunContext) -> bool:
    return any(
        named_weights(_folder(context, index)) is not None for index in range(1, len(context.stages) + 1)
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
