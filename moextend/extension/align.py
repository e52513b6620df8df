"""Alignment of a projector: the first step of MoExtend (section 3.1), done once per modality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from pathlib import Path

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.errors import InputError
from moextend.extension import modalities, tensor_files
from moextend.model.feature_cache import kept_features
from moextend.model.modality import Modality, packed, set_scale
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.training import resuming
from moextend.training.loop import Report, train
from moextend.training.settings import Settings
from moextend.util.processes import first_writes

STEM = "projector"
"""Stem of the files of a projector: projector.safetensors and projector.json."""
SAMPLE = 500
"""Number of conversations for measuring the scale of features."""
AT_ONCE = 64
"""Media that are encoded at a time for it."""
VALUES = 1 << 27
"""Maximum number of feature values for measuring the scale (0.5 GiB); further media are left out."""


def align(
    model: MultimodalLM,
    conversations: Sequence[Conversation],
    settings: Settings,
    *,
    folder: str | Path,
    modality: str = ImageRef.modality,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """Trains the projector of a modality on conversations with its media, and saves it.

    The settings' seed initialises it. The paper uses captions. The encoder and the language model stay frozen, and no
    extension computes. `load_projector` loads the projector; every extension depends on the projectors of its training,
    so align once, before the first extension that is trained with the modality.

    Args:
        conversations: any sequence, also a lazy one.
        folder: gets projector.safetensors and projector.json; a call that was interrupted goes on from the last
            checkpoint there when it is repeated with the same arguments.
        modality: "image", "audio", or another one of the model.
        on_step: called with (steps done, steps in all).

    Raises:
        InputError: the model has no encoder of the modality, or extensions that need its projector as it is; the
            conversations have no such medium; or the folder has a projector, or an interrupted call with other
            arguments.
    """
    folder = Path(folder)
    _free(model, modality)
    if tensor_files.is_complete(folder, STEM):
        raise InputError(
            "already holds a projector.", where=str(folder), hint="Use load_projector, or name a new folder."
        )
    _first_media(conversations, modality)  # refuses others before anything is written
    resuming.go_on(
        folder,
        {
            "settings": settings.record(),
            "data": resuming.learned_name(conversations, settings),
            "scale": resuming.name_data(conversations, range(min(SAMPLE, len(conversations)))),
            "model": modalities.without_projector(model, modality),
        },
    )
    with kept_features(model, folder):
        flight = folder / "align-in-flight"
        report = train_projector(
            model, conversations, settings, folder=flight, modality=modality, on_step=on_step
        )
    with first_writes() as first:
        if first:
            save_projector(model, folder, modality=modality)
            resuming.done(folder)
    return report


def train_projector(
    model: MultimodalLM,
    conversations: Sequence[Conversation],
    settings: Settings,
    *,
    folder: Path,
    modality: str = ImageRef.modality,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """The training of `align`; `folder` is that of `train`, which is removed at the end."""
    own = _free(model, modality)
    seen = _first_media(conversations, modality)
    own.projector.reset(settings.seed)
    with kept_features(model, folder), attach.reaching(model.lm, ()):
        set_scale(own.projector, _sample(own, seen))
        learned = {id(parameter) for parameter in own.projector.parameters()}
        model.learn_only([name for name, p in model.named_parameters() if id(p) in learned])
        try:
            report = train(model, conversations, settings, folder=folder, on_step=on_step)
            own.projector.aligned = True
            return report
        finally:
            model.learn_only([])


def _first_media(conversations: Sequence[Conversation], modality: str) -> list[MediaRef]:
    """The media of a modality in the first conversations; InputError if there are none."""
    found = [
        medium for row in islice(conversations, SAMPLE) for medium in row.media if medium.modality == modality
    ]
    if not found:
        raise InputError(
            f"the conversations have no {modality}.",
            where="align",
            hint=f"Give captions of {modality} media, with <{modality}> in the template, or leave it out.",
        )
    return found


def _sample(own: Modality, media: Sequence[MediaRef]) -> Tensor:
    """Features of the first media, up to `VALUES` numbers, encoded in batches and collected in host memory.

    A store of features computes full batches: fewer media at a time would cost as much.
    """
    sizes = (own.tokens_of(medium) * own.encoder.width for medium in media)
    count = max(1, sum(total <= VALUES for total in accumulate(sizes)))
    batches = [media[i : min(i + AT_ONCE, count)] for i in range(0, count, AT_ONCE)]
    return torch.cat([packed(own.see(batch)).cpu() for batch in batches])


def save_projector(model: MultimodalLM, folder: str | Path, *, modality: str = ImageRef.modality) -> None:
    """Saves the projector of a modality of `model` to `folder`."""
    own = _known(model, modality)
    card = {"projector": True, "base": modalities.without_projector(model, modality)}
    card |= {} if modality == ImageRef.modality else {"modality": modality}
    tensor_files.save_tensors(Path(folder), own.projector.state_dict(), card, STEM)


def load_projector(model: MultimodalLM, folder: str | Path, *, modality: str = ImageRef.modality) -> None:
    """Loads the projector that `align`, or an extension that needs it, saved to `folder` into a modality of `model`.

    Raises:
        InputError: the folder has no projector, or a damaged one, or one of another language model, encoder or
            modality; or the model has no encoder of the modality, or extensions that need its projector as it is.
    """
    folder = Path(folder)
    own = _free(model, modality)
    beside = modalities.stem(modality)
    tensors, card = tensor_files.load_tensors(
        folder, beside if tensor_files.is_complete(folder, beside) else STEM
    )
    if card.get("modality", ImageRef.modality) != modality:
        raise InputError(
            f"holds a projector of modality '{card.get('modality', ImageRef.modality)}', not '{modality}'.",
            where=str(folder),
            hint="Name the folder of the alignment of that modality.",
        )
    here = modalities.without_projector(model, modality)
    if card.get("base") != here:
        raise InputError(
            f"the projector belongs to another language model, quantisation or encoder ({card.get('base')}, this one "
            f"is {here}).",
            where=str(folder),
            hint="Load the model and the encoder that it was aligned with.",
        )
    own.projector.load_state_dict(tensors)


def _known(model: MultimodalLM, name: str) -> Modality:
    """The modality; InputError if the model lacks it."""
    if name not in model.modalities:
        how = {"image": "vision=...", "audio": "audio=..."}.get(name, f"encoders={{'{name}': ...}}")
        raise InputError(
            f"the model has no {name} encoder, and so no projector.",
            where="projector",
            hint=f"Load it with {how}, or skip the alignment: text needs none.",
        )
    return model.modalities[name]


def _free(model: MultimodalLM, name: str) -> Modality:
    """The modality; InputError if the model lacks it or its projector cannot be changed."""
    own = _known(model, name)
    if modalities.needs(model, name):
        raise InputError(
            "the model is extended, and its extensions need the present projector.",
            where="projector",
            hint="Align, or load a projector, before the first extension.",
        )
    return own
