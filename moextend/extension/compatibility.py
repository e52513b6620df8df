"""Checks before an extension is loaded: does it belong to this base, and are its co-active extensions loaded?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.extension.card import Card
from moextend.extension.modalities import stem
from moextend.extension.tensor_files import misfit, shapes
from moextend.model.fingerprint import base_parts
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.sites import find_sites


def check_base(
    model: MultimodalLM, card: Card, folder: Path, allow_dtype: bool, lm_only: bool = False
) -> None:
    """Raises InputError if the extension was made on another base, or with another encoder, projector or dtype.

    Modalities that the model has besides those of the training do not matter. `lm_only`: nor do those of the training.
    """
    lm, needed = base_parts(card.base)
    if lm_only:
        needed = {}
    own, has = base_parts(model.base_fingerprint())
    differing = [name for name, part in needed.items() if has.get(name) != part]
    if lm == own and not differing:
        return
    if not differing and _differs_in_dtype(model, card):
        if allow_dtype:
            return
        raise InputError(
            f"extension '{card.name}' was made on a {card.base_dtype} base, and this one is {model.base_dtype}.",
            where=str(folder),
            hint=f"Load the base with dtype='{card.base_dtype}', or accept results that differ a little: "
            "load_extension(..., allow_dtype=True).",
        )
    if lm == own:
        _refuse_modality(card, differing[0], needed[differing[0]], has.get(differing[0]), folder)
    made = f"{card.base}, {card.base_dtype}" if card.base_dtype else card.base
    hint = "Load the base that it was trained on, with the same encoder" + (
        "." if card.base_dtype else " and dtype."
    )
    if model.base_dtype == "float16" and card.base_dtype not in ("", "float16"):
        hint += f" If it is that base, use dtype='{card.base_dtype}': float16 rounds its numbers, or cannot hold them."
    raise InputError(
        f"extension '{card.name}' belongs to another base ({made}; this one is {model.base_fingerprint()}, "
        f"{model.base_dtype}).",
        where=str(folder),
        hint=hint,
    )


def _refuse_modality(
    card: Card, name: str, needed: tuple[str, str], has: tuple[str, str] | None, folder: Path
) -> None:
    """Raises InputError if the base is right and a modality is missing, or has another projector."""
    if has is None:
        raise InputError(
            f"extension '{card.name}' was made with a model that has modality '{name}', and this one does not have it.",
            where=str(folder),
            hint=f"If the folder is a copy, look for {stem(name)}.json in the original. Otherwise load the model with "
            f"its {name} encoder, or add it: moextend.add_modality(model, '{name}', ...).",
        )
    if has[0] == needed[0]:
        which, how = (
            ("", "(model, folder)")
            if name == ImageRef.modality
            else (f" of '{name}'", f"(model, folder, modality='{name}')")
        )
        raise InputError(
            f"extension '{card.name}' was made with another projector{which}.",
            where=str(folder),
            hint=f"Load the one of its alignment first: load_projector{how}, or --projector FOLDER of a command.",
        )


def _differs_in_dtype(model: MultimodalLM, card: Card) -> bool:
    """Whether the base is the extension's own, and only its number type differs."""
    return card.base_dtype not in ("", model.base_dtype) and card.base_rounded == model.base_rounded()


def coactive_of(
    model: MultimodalLM, card: Card, folder: Path, digest_of: Callable[[MultimodalLM, str], str]
) -> list[str]:
    """Names that the co-active extensions of a card have in `model`, oldest first.

    `digest_of`: digest of the weights of a loaded extension.

    Raises:
        InputError: one is missing, is another one, or they are loaded in another order.
    """
    scope, names = attach.scope_of(model.lm), list[str]()
    for earlier in card.beside:
        title = earlier["name"]
        titled = [name for name in scope.known if scope.titles.get(name, name) == title]
        if not titled:
            raise InputError(
                f"extension '{card.name}' was made with '{title}' active, and it is not loaded.",
                where=str(folder),
                hint=f"Load '{title}' first.",
            )
        same = [name for name in titled if digest_of(model, name) == earlier["digest"]]
        if not same:
            raise InputError(
                f"extension '{card.name}' was made with another extension '{title}' than the loaded one.",
                where=str(folder),
                hint=f"Unload '{title}' and load the one that it was made with.",
            )
        names.append(same[0])
    loaded = [name for name in scope.known if name in names]
    if loaded != names:
        raise InputError(
            f"extension '{card.name}' was made with {', '.join(names)} active, but the order is "
            f"{', '.join(loaded)}.",
            where=str(folder),
            hint="Unload them and load them in that order.",
        )
    return names


def check_plan(model: MultimodalLM, card: Card, path: Path) -> None:
    """Raises InputError if the file has another number of experts than the card, before memory is allocated."""
    held, sites = shapes(path), find_sites(model.lm)
    for block, sources in card.plan.items():
        if not block.isdecimal() or int(block) >= len(sites):
            continue  # attach reports it
        start = f"{sites[int(block)].name}."
        mine = [
            shape for name, (shape, _) in held.items() if name.startswith(start) and ".ext_groups." in name
        ]
        if not mine or any(shape[:1] != (len(sources),) for shape in mine):
            raise misfit(path)
