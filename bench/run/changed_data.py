"""Whether the data of a run are those that it has used."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.data import data_digest
from moextend.bench.data.open import media_files, open_table
from moextend.bench.data.source import is_generated
from moextend.bench.run.complete import named_weights
from moextend.bench.run.config import stage_name
from moextend.bench.run.context import RunContext
from moextend.bench.run.inputs import (
    GENERIC,
    code_parts,
    data_part,
    file_parts,
    known,
    refuse_changed,
    setting_parts,
    splits,
)
from moextend.bench.run.revisions import pin_data
from moextend.data.digests import FileDigests
from moextend.errors import InputError, MoextendError
from moextend.util import files

if TYPE_CHECKING:
    from moextend.bench.data.open import SplitName

log = logging.getLogger(__name__)


def refuse_changed_inputs(context: RunContext) -> None:
    """Records what the run works on: plug-ins, files of models, generic text, and the data of all tasks.

    Data that an error of the run was about may have been corrected: a file of media that could not be decoded, because
    nothing was computed from it, and other parts as long as no scored cell, aligned projector or learned stage
    depends on these data; a training on them that was interrupted starts again.

    Raises:
        RunConflict: something changed otherwise.
    """
    pin_data(context.run, context.tasks, context.workspace)
    facts, settings = context.run.facts(), context.method.config.model_dump(mode="json")
    refuse_changed(context.run, setting_parts(facts.settings), setting_parts(settings))
    before, broken = known(context.run), facts.broken
    now = {**code_parts(context.config), **file_parts(context.config)}
    used = {part: one for part, one in before.items() if part != GENERIC or _has_stage(context)}
    refuse_changed(context.run, used, now)
    others = []
    for name, split in splits(context.config):
        part = data_part(split, name)
        now[part] = data_digest(context.tasks[name], split, context.workspace)
        if before.get(part, now[part]) == now[part]:
            continue
        media = broken.get(name, {}).pop(split, None)
        if media and _is_corrected(context, name, split, media, before[part]):
            _note_corrected(context, part, now[part])
            continue
        if media is None or _is_used(context, name, split):
            refuse_changed(context.run, before, {part: now[part]})
        others.append((name, split))
    for name, split in others:
        log.warning("%s: the %s data of task '%s' changed.", context.run.folder, split, name)
        if split == "train":
            _forget_training(context, name)
    # Row 0 writes the facts that depend on the data again.
    more = {"majority": None} if others else {}
    context.inputs = {**before, **now}
    context.run.write_facts(inputs=context.inputs, broken=broken, **more)


def refuse_data_changed_meanwhile(context: RunContext, *some: tuple[str, SplitName]) -> None:
    """Raises RunConflict if data changed since the run began, and forgets an interrupted training on them.

    Args:
        some: (task, split) of these data; all by default.
    """
    for name, split in some or splits(context.config):
        task, part = context.tasks[name], data_part(split, name)
        if task.kind == "text" or is_generated(task) or part not in context.inputs:
            continue
        now = data_digest(task, split, context.workspace)
        if now != context.inputs[part] and split == "train":
            _forget_training(context, name)
        refuse_changed(context.run, context.inputs, {part: now})


def note_broken(context: RunContext, error: MoextendError) -> None:
    """Records the data that an error is about, if it is about some, and the broken file of media."""
    if isinstance(error, InputError) and error.where:
        with suppress(MoextendError, OSError):  # the error itself is more important
            _note_broken(context, error.where)


def _note_broken(context: RunContext, place: str) -> None:
    broken, workspace = context.run.facts().broken, context.workspace
    media = {}
    for name, split in splits(context.config):
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


def _note_corrected(context: RunContext, part: str, digest: str) -> None:
    """Notes corrected data in the cells that were made of the same data without the correction."""
    for cell in context.run.cells().values():
        if part in cell.inputs:
            context.run.append_cell(cell.model_copy(update={"inputs": {**cell.inputs, part: digest}}))


def _aligned(context: RunContext) -> list[str]:
    return [align.task for align in context.sequence.align]


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
                folder.mkdir()  # a training that still runs notes its costs there
