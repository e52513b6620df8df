"""Modalities that are added to a model after loading: adding, saving with extensions, removing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.extension import tensor_files
from moextend.extension.card import ModalityCard, read_extension
from moextend.model.base_name import base_parts
from moextend.model.loading import load_encoder
from moextend.model.modality import Encoder, Modality
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.util import spec


def add_modality(
    model: MultimodalLM,
    name: str,
    encoder: str | Encoder,
    *,
    projector: str | Path | None = None,
    **settings: Any,
) -> None:
    """Gives `model` a modality with a new projector; also a model with extensions, which do not change.

    Align the projector before the first extension that uses it: `align(model, ..., modality=name)`. An extension that
    is trained from now on needs the modality: its folder holds the projector and the name of the encoder.

    Args:
        name: "image", "audio", or a modality of `register_modality`.
        encoder: its name, or the encoder itself; only one with a name is loaded again with an extension.
        projector: folder of an aligned projector, or of an extension with one; None: a new one.
        settings: further arguments of the modality's encoder loader, as JSON values.

    Raises:
        UnknownName: there is no such modality.
        InputError: the model has the modality already, the encoder cannot be loaded, or the projector is another one's.
    """
    made = load_encoder(name, encoder, **settings) if isinstance(encoder, str) else encoder
    modality = model.modalities.add(name, made, model.width).to(model.device)
    modality.added = {"encoder": encoder if isinstance(encoder, str) else None, "settings": settings}
    if projector is not None:
        from moextend.extension.align import load_projector

        try:
            load_projector(model, projector, modality=name)
        except BaseException:
            del model.modalities[name]
            raise


def needs(model: MultimodalLM, name: str) -> list[str]:
    """Extensions of `model` that need a modality: all of them for one that the model was loaded with."""
    modality, known = model.modalities[name], attach.scope_of(model.lm).known
    return [other for other in known if modality.added is None or other in modality.needed_by]


def hold(model: MultimodalLM, extension: str, names: list[str] | None = None) -> None:
    """Notes that an extension needs the modalities `names` (None: all that the model has)."""
    for name, modality in model.modalities.items():
        if names is None or name in names:
            modality.needed_by.add(extension)


def release(model: MultimodalLM, extension: str) -> None:
    """Removes the modalities that were added and that only `extension`, which is unloaded, needed."""
    for name, modality in list(model.modalities.items()):
        if extension in modality.needed_by:
            modality.needed_by.discard(extension)
            if modality.added is not None and not needs(model, name):
                del model.modalities[name]


def save(model: MultimodalLM, folder: Path) -> None:
    """Writes projectors and names of encoders of the modalities that were added to the folder of an extension."""
    for name, modality in model.modalities.items():
        if modality.added is not None:
            tensors = {key: tensor.float() for key, tensor in modality.projector.state_dict().items()}
            encoder, projector = modality.fingerprints()
            card = ModalityCard(
                modality=name,
                facts=json.loads(json.dumps(dict(modality.encoder.facts), default=str)),
                fingerprint=encoder,
                projector=projector,
                base=without_projector(model, name),
                **modality.added,
            )
            tensor_files.save_tensors(folder, tensors, card.model_dump(), stem(name))


def without_projector(model: MultimodalLM, name: str) -> str:
    """Fingerprint of the language model and the encoder of a modality, without its projector."""
    found = model.base_fingerprint((name,))
    return found.rpartition("-" if name == ImageRef.modality else ".")[0]


def load_missing(model: MultimodalLM, folder: Path) -> list[str]:
    """Adds the modalities of an extension in `folder` that `model` lacks; returns their names.

    Raises:
        InputError: a file is damaged, or an encoder cannot be loaded, or is another one. The model is unchanged.
    """
    added: list[str] = []
    try:
        for name in carried(folder):
            if name not in model.modalities:
                added.append(name)
                _load(model, name, folder)
    except BaseException:
        forget(model, added)
        raise
    return added


def keep_missing(model: MultimodalLM, folder: Path) -> None:
    """As `load_missing`, for an extension that is loaded later; they stay when it is unloaded."""
    for name in load_missing(model, folder):
        model.modalities[name].added = None


def carried(folder: Path) -> list[str]:
    """Modalities that the folder of an extension holds."""
    names = base_parts(read_extension(folder).base)[1]
    return [name for name in names if (folder / f"{stem(name)}.json").is_file()]


def forget(model: MultimodalLM, names: list[str]) -> None:
    """Removes modalities that `load_missing` added."""
    for name in set(names) & {*model.modalities}:
        del model.modalities[name]


def _load(model: MultimodalLM, name: str, folder: Path) -> None:
    tensors, values = tensor_files.load_tensors(folder, stem(name))
    where = str(folder / f"{stem(name)}.json")
    known = {key: value for key, value in values.items() if key not in ("format", "sha256")}
    card = spec.parse(ModalityCard, known, where=where)
    if card.encoder is None:
        raise InputError(
            f"the extension needs modality '{name}', whose encoder has no name to load it by.",
            where=where,
            hint=f"Add it first: moextend.add_modality(model, '{name}', encoder=..., projector='{folder}').",
        )
    add_modality(model, name, card.encoder, **card.settings)
    modality: Modality = model.modalities[name]
    found = modality.encoder.fingerprint()
    if found != card.fingerprint:
        raise InputError(
            f"encoder '{card.encoder}' is not the one of the training ({card.fingerprint}, this one is {found}).",
            where=where,
            hint="Use the files of the encoder that the extension was trained with.",
        )
    try:
        modality.projector.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            "holds another projector than the model's.", where=where, hint="Train the extension again."
        ) from error
    modality.known_as((found, card.projector))


def stem(name: str) -> str:
    """Stem of the files of a modality in the folder of an extension."""
    return f"modality-{name}"
