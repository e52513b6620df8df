"""What a stock checkpoint lacks that the extended model has, in words."""

from __future__ import annotations

from moextend.errors import InputError
from moextend.export.exact import state_of
from moextend.extension import store
from moextend.extension.card import read_extension
from moextend.model.multimodal import MultimodalLM

EXACT = ("float32", "float64")
"""Number types of a base in which new weights, which are float32, are not rounded."""


def check_rounding(own: str, wanted: str | None) -> None:
    """Raises InputError if a checkpoint of the base's number type would round the new weights unasked.

    Args:
        own: number type of the base in the training. wanted: the one that the user names.
    """
    if wanted is None and own not in EXACT:
        raise InputError(
            f"the base is {own}, and the new experts are float32: rounded to {own} they compute other logits.",
            where="--dtype",
            hint=f"Accept that with --dtype {own}, or write all weights as float32: --dtype float32.",
        )


def notes_of(model: MultimodalLM) -> list[str]:
    """What users of a stock checkpoint of `model` must know: every input reaches the new experts, no encoder."""
    found = []
    for name in state_of(model.lm).active:
        folder = store.handle(model, name).folder
        made = None if folder is None else read_extension(folder).made
        scope = str(made.recipe.get("scope", "")) if made else ""
        if scope in ("own", "auto"):
            found.append(
                f"extension '{name}' was made with scope={scope}, for inputs of its own; in the checkpoint every input "
                "reaches it."
            )
    if model.modalities:
        names = ", ".join(model.modalities)
        found.append(f"the checkpoint reads text only: encoders and projectors ({names}) are not part of it.")
    return found
