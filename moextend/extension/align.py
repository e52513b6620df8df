"""Aligns a projector: the first step of MoExtend (section 3.1), taken once for a modality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.extension import store
from moextend.model.batches import Conversation
from moextend.model.feature_cache import kept_features
from moextend.model.multimodal import MultimodalLM, Projector, set_scale
from moextend.training import resuming
from moextend.training.loop import Report, train
from moextend.training.settings import Settings
from moextend.util.processes import first_writes

STEM = "projector"
"""The files that hold a projector: projector.safetensors and projector.json."""
SAMPLE = 500
"""Conversations whose images the scale of the features is measured on."""
VALUES = 1 << 27
"""Numbers that the scale is measured on at the most (0.5 GiB): images beyond are left out."""


def align(
    model: MultimodalLM,
    conversations: Sequence[Conversation],
    settings: Settings,
    *,
    folder: str | Path,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """Trains the projector of `model`, from a start of the settings' seed, on conversations about images, and keeps it.

    Captions are what the paper takes. The encoder and the language model stay frozen. `load_projector` reads what is
    kept; every extension belongs to the projector that it was made with, so align once, before the first one.

    Args:
        conversations: any sequence, a lazily read one too.
        folder: gets projector.safetensors and projector.json; a call that was interrupted goes on from the last
            checkpoint there when it is repeated with the same arguments.
        on_step: called with (steps done, steps in all).

    Raises:
        InputError: the model has no image encoder or is extended already, the conversations show no image, or the
            folder holds a projector, or one that was begun otherwise.
    """
    folder = Path(folder)
    _free_projector(model)
    if store.is_complete(folder, STEM):
        raise InputError(
            "holds a projector already.", where=str(folder), hint="Use load_projector, or name a new folder."
        )
    resuming.go_on(
        folder,
        {
            "settings": resuming.settings_facts(settings),
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
    """The training of `align` alone; `folder` is that of `train`, gone at the end."""
    projector = _free_projector(model)
    seen = [image for row in islice(conversations, SAMPLE) for image in row.images]
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
    """Features of the first images, as many as `VALUES` allows, encoded in batches and gathered in host memory."""
    see = model.features or model.vision
    assert see is not None and model.vision is not None
    images = images[: max(1, VALUES // (model.vision.tokens * model.vision.width))]
    return torch.cat([see(images[i : i + batch_size]).cpu() for i in range(0, len(images), batch_size)])


def save_projector(model: MultimodalLM, folder: str | Path) -> None:
    """Keeps the projector of `model` in `folder`."""
    projector = _free_projector(model)
    card = {"projector": True, "base": _sees(model)}
    store.save_tensors(Path(folder), projector.state_dict(), card, STEM)


def load_projector(model: MultimodalLM, folder: str | Path) -> None:
    """Gives `model` the projector that `align` kept in `folder`.

    Raises:
        InputError: the folder holds none, or it is damaged, or it belongs to another language model or encoder; or
            the model has no encoder or is extended already.
    """
    folder = Path(folder)
    projector = _free_projector(model)
    tensors, card = store.load_tensors(folder, STEM)
    if card.get("base") != _sees(model):
        raise InputError(
            f"the projector belongs to another language model or encoder ({card.get('base')}, "
            f"this one is {_sees(model)}).",
            where=str(folder),
            hint="Load the model and the encoder that it was aligned with.",
        )
    projector.load_state_dict(tensors)


def _free_projector(model: MultimodalLM) -> Projector:
    """The projector, if it may be changed."""
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
    """Names the language model and the encoder, without the projector."""
    return model.base_fingerprint().rpartition("-")[0]
