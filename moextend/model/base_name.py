"""The fingerprint of a base as text: that of its LM, and of encoder and projector of each modality."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from moextend.data.images import ImageRef
from moextend.util import files, lookup

TYPE = rf"^(({'|'.join(lookup.DTYPES)})(\+({'|'.join(get_args(lookup.Quantisation))}))?)?$"
"""Pattern of a `type_name`; "": not known."""
_PART = re.compile(r"(?P<name>[a-z][a-z0-9]*)\.(?P<encoder>\w+)\.(?P<projector>\w+)")


def base_name(lm: str, modalities: Mapping[str, tuple[str, str]]) -> str:
    """Fingerprint of a base from those of its LM and of encoder and projector of each modality.

    Those of images have no name in it.
    """
    parts = [lm, *modalities.get(ImageRef.modality, ())]
    for name in sorted(set(modalities) - {ImageRef.modality}):
        encoder, projector = modalities[name]
        plain = re.fullmatch(r"\w+", encoder)  # others may contain the separators
        parts.append(f"{name}.{encoder if plain else files.digest(encoder)}.{projector}")
    return "-".join(parts)


def type_name(dtype: object, quantised: str) -> str:
    """Number type of a base's weights as text ("bfloat16"), with its quantisation if it has one ("bfloat16+nf4")."""
    return "+".join(filter(None, (str(dtype).removeprefix("torch."), quantised)))


def type_parts(name: str) -> tuple[str, str | None]:
    """Number type and quantisation of a `type_name`; None: not quantised."""
    dtype, _, quantised = name.partition("+")
    return dtype, quantised or None


def base_parts(name: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """Fingerprint of the LM, and modality -> those of its encoder and projector, from a `base_name`."""
    lm, *rest = name.split("-")
    found = {}
    while rest and (part := _PART.fullmatch(rest[-1])):
        rest.pop()
        found[part["name"]] = (part["encoder"], part["projector"])
    if rest:
        found[ImageRef.modality] = ("-".join(rest[:-1]), rest[-1])
    return lm, found
