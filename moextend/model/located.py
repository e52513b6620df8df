"""Encoders before they are loaded: whether they exist, and where they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moextend.data.modalities import ModalityType, modality_types
from moextend.errors import InputError, UnknownName

GRID = re.compile(r"(?P<name>.+):(?P<rows>[0-9]{1,4})x(?P<columns>[0-9]{1,4})")
"""Rows and columns of an image's tokens."""
PACE = re.compile(r"(?P<name>.+):(?P<pace>\d+(?:\.\d+)?)/s")
"""Tokens of a second of sound."""


@dataclass(frozen=True)
class Located:
    """Origin of an encoder; nothing is loaded yet."""

    library: str
    """Library that loads it."""
    remote: bool
    """Whether loading may download."""
    repository: str | None = None
    """Repository on the Hugging Face Hub, if the name is one."""


def locate(modality: str, name: str) -> Located:
    """Origin of encoder `name`; loads and downloads nothing.

    Raises:
        InputError: there is no such modality, or no such model, folder or file.
    """
    if modality == "image":
        from moextend.model import encoders

        found = encoders.locate(name)
        return Located(found.library, found.remote)
    if modality == "audio":
        from moextend.model.audio import locate as place_of

        place = place_of(name)
        remote = isinstance(place, str)
        return Located("transformers", remote, str(place) if remote else None)
    known = modality_types()
    if modality not in known:
        raise UnknownName("modality", modality, known)
    if known[modality].load_encoder is None:
        raise no_loader(known[modality])
    return Located(f"modality '{modality}'", remote=False)


def no_loader(kind: ModalityType) -> InputError:
    """Error for an encoder of a modality whose encoders cannot be loaded by name."""
    if kind.becomes is not None:
        return InputError(
            f"{kind.plural} have no encoder: models take them as media of the modality {kind.becomes}.",
            hint=f"Name an encoder of the modality {kind.becomes}.",
        )
    return InputError(
        f"modality '{kind.name}' names no loader of encoders.", hint="Set load_encoder of its ModalityType."
    )


def without_tokens(name: str) -> str:
    """Name of an encoder without its number of tokens."""
    found = GRID.fullmatch(name) or PACE.fullmatch(name)
    return found["name"] if found else name
