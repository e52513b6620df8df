"""Aligns the projector of a modality once before the first stage; all methods with the same seed share the result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from moextend.bench.run.records import AlignmentCost
from moextend.bench.sequence import Align
from moextend.errors import InputError
from moextend.util import files, processes

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM


log = logging.getLogger(__name__)


def align(
    model: MultimodalLM,
    data: Sequence[Conversation],
    settings: Align,
    *,
    seed: int,
    data_name: str,
    cache: Path,
    on_step: Callable[[int, int], None],
    modality: str = "image",
) -> AlignmentCost:
    """Gives `model` a projector trained on captions (MoExtend section 3.1), from the cache if possible.

    Encoder, language model and the projectors of other modalities stay frozen. `data_name` is a digest of the captions.
    The cache key covers everything that the result depends on. If several processes need the same projector, one of
    them trains it. Returns what the training cost, also if another run trained it.
    """
    from filelock import FileLock

    from moextend.extension.align import train_projector
    from moextend.training.checkpoint import read_tensors, write_tensors

    projector = model.modalities[modality].projector
    projector.reset(seed)
    chat = model.chat.fingerprint() if model.chat else None
    key = files.digest(model.base_fingerprint([modality]), settings.record(), data_name, seed, chat)
    kept = cache / f"{key}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)

    def is_kept() -> bool:
        try:
            return kept.exists() and bool(read_tensors(kept))
        except InputError as error:
            log.warning("%s The projector is aligned again.", error)
            if kept.is_dir():
                kept.replace(kept.with_name(f"{kept.name}.damaged"))
            return False

    with processes.first_enters(lambda: FileLock(cache / f"{key}.lock")):
        if not processes.first_says(is_kept):
            began = time.monotonic()
            report = train_projector(
                model, data, settings.settings(seed), folder=cache / key, on_step=on_step, modality=modality
            )
            seconds = time.monotonic() - began
            cost = AlignmentCost(
                task=settings.task,
                steps=report.steps,
                tokens=report.tokens,
                flops=report.flops,
                seconds=seconds,
                micro_batch=report.micro_batch,
            )
            with processes.first_writes() as first:
                if first:
                    files.write_json(kept.with_suffix(".json"), cost.model_dump())
                    write_tensors(kept, projector.state_dict())
        projector.load_state_dict(read_tensors(kept))
        processes.gathered(lambda: None)  # the lock is held until all have read
    return _cost(kept.with_suffix(".json"), settings)


def _cost(path: Path, settings: Align) -> AlignmentCost:
    """The recorded cost; without a readable record only task and steps are known."""
    try:
        return AlignmentCost.model_validate(files.read_json(path)).model_copy(update={"task": settings.task})
    except (FileNotFoundError, InputError, ValidationError):
        return AlignmentCost(task=settings.task, steps=settings.steps)
