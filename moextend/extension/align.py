"""Alignment of a projector: the first step of MoExtend (section 3.1), done once per modality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.extension import tensor_files
from moextend.model.feature_cache import kept_features
from moextend.model.multimodal import MultimodalLM, Projector, set_scale
from moextend.training import resuming
from moextend.training.loop import Report, train
from moextend.training.settings import Settings
from moextend.util.processes import first_writes

STEM = "projector"
"""Stem of the files of a projector: projector.safetensors and projector.json."""
SAMPLE = 500
"""Number of conversations for measuring the scale of image features."""
VALUES = 1 << 27
"""Maximum number of feature values for measuring the scale (0.5 GiB); further images are left out."""


def align(
    model: MultimodalLM,
    conversations: Sequence[Conversation],
    settings: Settings,
    *,
    folder: str | Path,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """Trains the projector of `model` on conversations with images, and saves it; the settings' seed initialises it.

    The paper uses captions. The encoder and the language model stay frozen. `load_projector` loads the projector; every
    extension depends on the projector of its training, so align once, before the first extension.

    Args:
        conversations: any sequence, also a lazy one.
        folder: gets projector.safetensors and projector.json; a call that was interrupted goes on from the last
            checkpoint there when it is repeated with the same arguments.
        on_step: called with (steps done, steps in all).

    Raises:
        InputError: the model has no image encoder or is extended; the conversations have no image; or the folder has a
            projector, or an interrupted call with other arguments.
    """
    folder = Path(folder)
    _free_projector(model)
    if tensor_files.is_complete(folder, STEM):
        raise InputError(
            "already holds a projector.", where=str(folder), hint="Use load_projector, or name a new folder."
        )
    resuming.go_on(
        folder,
        {
            "settings": settings.record(),
            "data": resuming.learned_name(conversations, settings),
            "scale": resuming.name_data(conversations, range(min(SAMPLE, len(conversations)))),
            "model": _sees(model),
        },
    )
    with kept_features(model, folder):
        report = train_projector(
            model, conversations, settings, folder=folder / "align-in-flight", on_step=on_step
        )
    with first_writes() as first:
        if first:
            save_projector(model, folder)
            resuming.done(folder)
    return report


def train_projector(
    model: MultimodalLM,
    conversations: Sequence[Conversation],
    settings: Settings,
    *,
    folder: Path,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """The training of `align`; `folder` is that of `train`, which is removed at the end."""
    projector = _free_projector(model)
    seen = [image for row in islice(conversations, SAMPLE) for image in row.media]
    if not seen:
        raise InputError(
            "the conversations show no image.",
            where="align",
            hint="Give captions of images, or leave it out.",
        )
    projector.reset(settings.seed)
    with kept_features(model, folder):
        set_scale(projector, _sample(model, seen, settings.batch_size))
        model.learn_only([name for name, _ in model.named_parameters() if name.startswith("projector.")])
        try:
            return train(model, conversations, settings, folder=folder, on_step=on_step)
        finally:
            model.learn_only([])


def _sample(model: MultimodalLM, images: Sequence[ImageRef], batch_size: int) -> Tensor:
    """Features of the first images, up to `VALUES` numbers, encoded in batches and collected in host memory."""
    see = model.features or model.vision
    assert see is not None and model.vision is not None
    images = images[: max(1, VALUES // (model.vision.tokens * model.vision.width))]
    return torch.cat([see(images[i : i + batch_size]).cpu() for i in range(0, len(images), batch_size)])


def save_projector(model: MultimodalLM, folder: str | Path) -> None:
    """Saves the projector of `model` to `folder`."""
    projector = _free_projector(model)
    card = {"projector": True, "base": _sees(model)}
    tensor_files.save_tensors(Path(folder), projector.state_dict(), card, STEM)


def load_projector(model: MultimodalLM, folder: str | Path) -> None:
    """Loads the projector that `align` saved to `folder` into `model`.

    Raises:
        InputError: the folder has no projector, or a damaged one, or one of another language model or encoder; or the
            model has no encoder or is extended.
    """
    folder = Path(folder)
    projector = _free_projector(model)
    tensors, card = tensor_files.load_tensors(folder, STEM)
    if card.get("base") != _sees(model):
        raise InputError(
            f"the projector belongs to another language model or encoder ({card.get('base')}, "
            f"this one is {_sees(model)}).",
            where=str(folder),
            hint="Load the model and the encoder that it was aligned with.",
        )
    projector.load_state_dict(tensors)


def _free_projector(model: MultimodalLM) -> Projector:
    """The projector; InputError if it cannot be changed."""
    if model.projector is None:
        raise InputError(
            "the model has no image encoder, and so no projector.",
            where="projector",
            hint="Load it with vision=..., or leave the alignment out: text needs none.",
        )
    if any(".ext_" in name for name, _ in model.lm.named_parameters()):
        raise InputError(
            "the model is extended, and its extensions belong to the projector as it is.",
            where="projector",
            hint="Align, or load a projector, before the first extension.",
        )
    return model.projector


def _sees(model: MultimodalLM) -> str:
    """Fingerprint of the language model and the encoder, without the projector."""
    return model.base_fingerprint().rpartition("-")[0]
