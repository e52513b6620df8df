"""Aligns the projector of a modality once before the first stage; all methods with the same seed share the result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.sequence import Align
from moextend.errors import InputError
from moextend.util import files

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
) -> None:
    """Gives a modality of `model` a projector trained on captions (MoExtend section 3.1), from the cache if possible.

    Encoder and language model stay frozen. `data_name` is a digest of the captions. The cache key covers everything
    that the result depends on. If several processes need the same projector, one of them trains it.
    """
    from filelock import FileLock

    from moextend.extension.align import train_projector
    from moextend.training.checkpoint import read_tensors, write_tensors

    projector = model.modalities[modality].projector
    projector.reset(seed)
    chat = model.chat.fingerprint() if model.chat else None
    key = files.digest(model.base_fingerprint((modality,)), settings.record(), data_name, seed, chat)
    kept = cache / f"{key}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        try:
            tensors = read_tensors(kept) if kept.exists() else None
        except InputError as error:
            log.warning("%s The projector is aligned again.", error)
            tensors = None
            if kept.is_dir():
                kept.replace(kept.with_name(f"{kept.name}.damaged"))
        if tensors is None:
            train_projector(
                model, data, settings.settings(seed), folder=cache / key, modality=modality, on_step=on_step
            )
            write_tensors(kept, projector.state_dict())
            tensors = read_tensors(kept)
    projector.load_state_dict(tensors)
