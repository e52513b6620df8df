"""Checks before a run folder is made: everything that would stop a worker later and needs no model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from moextend.bench.data import open_items
from moextend.bench.data.source import SPLITS, Split, files_of, find_source, is_generated, parse_split, place
from moextend.bench.score.text.folder import check_name
from moextend.bench.scorers.table import find_scorer, search
from moextend.bench.sequence import SequenceSpec, memory_texts
from moextend.bench.task import HAND, TaskSpec
from moextend.data.hub import check_access
from moextend.data.modalities import modality_types
from moextend.data.table import FORMATS
from moextend.errors import InputError, SpecError, at
from moextend.model import sources
from moextend.model.encoders import locate
from moextend.model.sources import check_device
from moextend.training.settings import check_tracker
from moextend.util import content, files

READ = {".json", ".jsonl", ".csv", ".tsv"}
"""File types that are opened here to find a wrong column early: fast to read, without a library."""
SMALL = 32 * 2**20
"""Maximum size in bytes of data that is opened here."""
MEDIA = 1000
"""Maximum number of media of a split that are looked for."""


def check(sequence: SequenceSpec, tasks: Mapping[str, TaskSpec], workspace: Path) -> None:
    """Raises InputError if a sequence or its tasks name something that does not exist; downloads may be missing."""
    search(workspace)
    file = str(sequence.path or sequence.sequence)
    base = sequence.base
    if not base.model:  # nothing is trained
        for task in tasks.values():
            _check_task(task)
        return
    if base.model not in content.CARRIED and base.found(workspace) not in base.by_hand(workspace):
        _find_base(sequence, workspace)
    for modality, name in base.encoders_in(workspace).items():
        with at(f"{file}: {base.encoder_key(modality)}"):
            if name not in base.by_hand(workspace):
                locate(modality, name)
    check_modalities(sequence, tasks)
    with at(f"{file}: memory"):
        memory_texts(sequence.memory_file())
    for task in tasks.values():
        _check_task(task)


def check_scored(task: TaskSpec, encoders: Container[str], workspace: Path) -> None:
    """Raises InputError if a task cannot be scored: its data, or the encoder of a modality, are missing."""
    search(workspace)
    _check_task(task)
    for modality in task.modalities:
        if modality not in encoders:
            raise InputError(
                f"it is about {_media(modality)}, and the base has no {modality} encoder.",
                where=f"--task {task.task}",
                hint=f"Name an extension that brings one (its folder has modality-{modality}.json), or another task.",
            )
    if task.data is not None:
        _check_data(task, "test", workspace)


def check_modalities(sequence: SequenceSpec, tasks: Mapping[str, TaskSpec]) -> None:
    """Raises SpecError if a modality of a task has no encoder, or an alignment is not of one modality of its own."""
    file, base = sequence.path or sequence.sequence, sequence.base
    encoders = base.encoders_in(Path())
    for name, task in tasks.items():
        for modality in task.modalities:
            if modality not in encoders:
                raise SpecError(
                    f"'{name}' is about {_media(modality)}, and the base has no {modality} encoder.",
                    where=f"{file}: {base.encoder_key(modality)}",
                    hint="Name one, or leave the column of these media out of the task.",
                )
    known: dict[str, str] = {}
    for align in sequence.align:
        found = tasks[align.task].modalities
        if len(found) != 1:
            media = " and ".join(map(_media, found)) or "no media"
            what = f"'{align.task}' has {media}, and an alignment trains the projector of one modality."
            hint = "Name a caption task with one modality."
            raise SpecError(what, where=f"{file}: align.task", hint=hint)
        if other := known.get(found[0]):
            what = f"'{other}' and '{align.task}' train the same projector, of {_media(found[0])}."
            raise SpecError(what, where=f"{file}: align", hint="Keep one of them.")
        known[found[0]] = align.task


def _media(modality: str) -> str:
    """ "images", "sounds"; the name of a modality that is not known (yet)."""
    known = modality_types().get(modality)
    return known.plural if known else modality


def check_here(
    sequence: SequenceSpec,
    tasks: Mapping[str, TaskSpec],
    workspace: Path,
    *,
    device: str | None,
    runs: Path | None,
    seeds: Sequence[int] = (0,),
) -> None:
    """Raises InputError if this machine lacks a device, a tracker, data or a writable folder, or the hub refuses.

    `device` is None if the runs are for other machines, and `runs` if all of them are done: the hub is not asked then.
    """
    file = str(sequence.path or sequence.sequence)
    _check_by_hand(sequence, workspace)
    _find_base(sequence, workspace)
    if device is not None:
        check_device(
            device,
            sequence.base.dtype,
            sequence.base.attn_implementation,
            where=f"{file}: base.attn_implementation",
        )
    check_tracker(sequence.train.report_to, where=f"{file}: train.report_to")
    for align in sequence.align:
        check_tracker(align.report_to, where=f"{file}: align.report_to")
    for task, split in splits_used(sequence, tasks):
        for own in [task.of_seed(seed) for seed in seeds] if task.is_seeded else [task]:
            _check_data(own, split, workspace)
    if runs is not None:
        files.check_writable(runs, where="--workspace")
        files.check_writable(workspace / ".cache", where="--workspace")
        _check_hub(sequence, tasks, workspace)  # last: it may take the network


def splits_used(sequence: SequenceSpec, tasks: Mapping[str, TaskSpec]) -> Iterator[tuple[TaskSpec, Split]]:
    """Tasks with data of their own, and the splits of them that a sequence learns or scores."""
    learned = {stage.task for stage in sequence.stages} | {align.task for align in sequence.align}
    scored = {*(stage.task for stage in sequence.stages), *sequence.retention, *sequence.transfer}
    for name, task in tasks.items():
        if task.data is not None:
            yield from ((task, "train"),) if name in learned else ()
            yield from ((task, "test"),) if name in scored else ()


def _check_by_hand(sequence: SequenceSpec, workspace: Path) -> None:
    """Raises InputError if the model or an encoder is not yet where it is put by hand."""
    base, file = sequence.base, sequence.path or sequence.sequence
    places = [("base.model", base.found(workspace), "model", "its tokenizer")]
    for modality, name in base.encoders_in(workspace).items():
        places.append((base.encoder_key(modality), name, "encoder", "the config of its feature extractor"))
    for key, name, what, more in places:
        if name in base.by_hand(workspace):
            raise InputError(
                f"no folder '{name}'.",
                where=f"{file}: {key}",
                hint=f"Put the {what} there: config.json, its weights and {more}. bench run --dry-run lists all that "
                "is missing.",
            )


def _check_hub(sequence: SequenceSpec, tasks: Mapping[str, TaskSpec], workspace: Path) -> None:
    """Raises InputError if the hub has no such base or data, or not for this user; RunFailed if it gives no base.

    Of a base its config.json is downloaded, of data nothing. A base in the cache is not asked for: its branch may have
    moved, and a run goes on with the commit that it recorded.
    """
    base = sequence.base
    found = sources.find(base.found(workspace)) if base.model else None
    if isinstance(found, str) and sources.snapshot(found, base.revision) is None:
        key = "base.revision" if base.revision else "base.model"
        where = f"{sequence.path or sequence.sequence}: {key}"
        sources.check_hub(found, revision=base.revision, where=where)
        sources.commit(found, base.revision, where=where)
    for task in tasks.values():
        if task.data is None or is_generated(task):
            continue
        where = f"{task.path or task.task}: data.{'revision' if task.data.revision else 'path'}"
        source = find_source(task.data, task.folder(), workspace, where=where)
        if source.hub is not None:
            check_access(source.hub, task.data.revision, where=where)


def _find_base(sequence: SequenceSpec, workspace: Path) -> None:
    if not sequence.base.model:
        return
    file = sequence.path or sequence.sequence
    with at(f"{file}: base.model"):
        found = sources.find(sequence.base.found(workspace))
    saved = isinstance(found, Path) and found.is_dir() and not sources.gguf_file(found)
    if sequence.base.chat and saved and not sources.has_chat_template(Path(found)):
        raise InputError(
            f"the tokenizer of '{sequence.base.model}' has no chat template.",
            where=f"{file}: base.chat",
            hint="Remove the key: prompts are then used as they are.",
        )


def _check_task(task: TaskSpec) -> None:
    if task.lm_eval is not None and task.lm_eval.path is None:
        check_name(task.lm_eval.task, where=f"{task.path or task.task}: lm_eval.task")
    if task.data is None:
        return
    file = task.path or task.task
    find_scorer(task.scorer, where=f"{file}: scorer")
    if not task.prompt.strip():
        raise InputError("is empty.", where=f"{file}: prompt", hint="Write what the model is asked.")
    task.layout.placeholders()
    for key in SPLITS:
        name = getattr(task.data, key)
        if name is not None:
            parse_split(name, where=f"{file}: data.{key}")


def _check_data(task: TaskSpec, split: Split, workspace: Path) -> None:
    """Raises InputError if local data of a task, or its first medium, does not exist, or lacks a split or column."""
    if is_generated(task):
        return
    for path, key in missing_files(task, split, workspace, most=1).items():
        raise InputError(
            f"no file or folder {path}.",
            where=f"{task.path or task.task}: data.{key}",
            hint=(task.data and task.data.prepare) or "Put it there, or correct the path.",
        )
    if readable(task, split, workspace):
        open_items(task, split, workspace, 1, media=False, strict=False)


def missing_files(task: TaskSpec, split: Split, workspace: Path, *, most: int = MEDIA) -> dict[Path, str]:
    """Local files and folders that a task names for a split and that are not there -> the key that names them.

    Of small data also its media, of which at most `most` are looked for, at equal distances. Raises InputError if the
    data cannot be opened.
    """
    data = task.data
    assert data is not None
    folder, name = place(data.located, task.folder(), workspace), getattr(data, split)
    if is_generated(task) or name is None or not (files.exists(folder) or data.path.startswith(HAND)):
        return {}
    part = parse_split(name, where=f"{task.path or task.task}: data.{split}").split
    named = {folder: "path"}
    if Path(part).suffix in FORMATS and not folder.is_file():
        named = {folder / part: split}
    images = None if data.images is None else place(data.images, task.folder(), workspace)
    if images is not None:
        named[images] = "images"
    gone = {path: key for path, key in named.items() if not files.exists(path)}
    if gone or not readable(task, split, workspace):
        return gone
    items = open_items(task, split, workspace, 1 if most == 1 else None, strict=False)
    for ref in islice(items.media_refs(), 0, None, max(1, len(items) // most)):
        if ref.path is not None and not files.exists(ref.path):
            # A path is relative to the folder of the data or to that of the images, where it belongs if there is one.
            inside = images is not None and ref.path.is_relative_to(folder)
            gone[images / ref.path.relative_to(folder) if images and inside else ref.path] = split
    return gone


def readable(task: TaskSpec, split: Split, workspace: Path) -> bool:
    """Whether the data of a split are small local files that are fast to read; InputError without files."""
    assert task.data is not None
    where = f"{task.path or task.task}: data"
    source = find_source(task.data, task.folder(), workspace, where=f"{where}.path")
    if source.hub is not None:
        return False
    part = parse_split(getattr(task.data, split), where=f"{where}.{split}")
    found = files_of(source, part.split, where=f"{where}.{split}")
    small = sum(path.stat().st_size for path in found) <= SMALL
    return small and {path.suffix.lower() for path in found} <= READ and task.data.join is None
