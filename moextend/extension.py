"""An extension on disk: the tensors of one stage (safetensors) and what they belong to (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moextend import expand, files
from moextend.errors import InputError
from moextend.moe import find_sites
from moextend.multimodal import MultimodalLM
from moextend.routing import Mode
from moextend.vision import tensors_digest

TENSORS, CARD = "extension.safetensors", "extension.json"


@dataclass(frozen=True)
class Card:
    """What an expert set is and which base it belongs to."""

    name: str
    mode: Mode
    plan: dict[str, list[int]]
    """MoE block -> parents of its new experts."""
    calibrate: bool
    beside: list[str]
    """Extensions that were reachable when it was made, oldest first."""
    base: str
    """Fingerprint of the base."""


def save_tensors(folder: Path, tensors: dict[str, Tensor], card: dict[str, Any]) -> None:
    """Writes tensors, then the card; a folder without a card is not whole."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.atomic(folder / TENSORS) as path:
        save_file(ready, path)
    files.write_json(folder / CARD, card)


def load_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the card in a folder; InputError where it holds no whole extension."""
    try:
        return load_file(folder / TENSORS), files.read_json(folder / CARD)
    except FileNotFoundError as error:
        raise InputError(
            f"holds no extension ({Path(error.filename or CARD).name} is missing).",
            where=str(folder),
            mend="Name a folder that an extension was saved to.",
        ) from error
    except Exception as error:
        if type(error).__name__ not in ("SafetensorError", "JSONDecodeError"):
            raise
        raise InputError(
            f"cannot be read ({error}).", where=str(folder), mend="The files are damaged: make them again."
        ) from error


def is_whole(folder: Path) -> bool:
    """Whether a folder holds an extension that was written to its end."""
    return (folder / CARD).is_file() and (folder / TENSORS).is_file()


def save_extension(model: MultimodalLM, name: str, *, folder: Path, beside: Sequence[str] = ()) -> None:
    """Saves expert set `name`; `beside` are the extensions that were reachable when it was made."""
    plan: dict[str, list[int]] = {}
    for site in find_sites(model.lm):
        if name in getattr(site.router, "ext_parts", {}):
            plan[str(site.layer)] = list(cast(Any, site.router).ext_parts[name].parents)
    tensors = expand.new_parameters(model.lm, name)
    card = Card(
        name=name,
        mode=expand.scope_of(model.lm).mode,
        plan=plan,
        calibrate=any(".calibration." in key for key in tensors),
        beside=list(beside),
        base=model.base_fingerprint(),
    )
    save_tensors(folder, dict(tensors), asdict(card))


def load_extension(model: MultimodalLM, folder: Path) -> Card:
    """Attaches the expert set in `folder` to `model`, frozen, and makes it reachable.

    Raises:
        InputError: it belongs to another base, or was made beside extensions that are not loaded.
    """
    tensors, values = load_tensors(folder)
    card = Card(**values)
    if card.base != model.base_fingerprint():
        raise InputError(
            f"extension '{card.name}' belongs to another base ({card.base}, this one is {model.base_fingerprint()}).",
            where=str(folder),
            mend="Load the base that it was trained on.",
        )
    scope = expand.scope_of(model.lm)
    missing = [name for name in card.beside if name not in scope.known]
    if missing:
        raise InputError(
            f"extension '{card.name}' was made beside '{missing[0]}', which is not loaded.",
            where=str(folder),
            mend=f"Load '{missing[0]}' first.",
        )
    expand.activate(model.lm, card.beside)
    plan = {int(block): sources for block, sources in card.plan.items()}
    expand.attach(model.lm, card.name, plan, mode=card.mode, calibrate=card.calibrate)
    with torch.no_grad():
        for name, parameter in expand.new_parameters(model.lm, card.name).items():
            parameter.copy_(tensors[name])
            parameter.requires_grad_(False)
    return card


def active_fingerprint(model: MultimodalLM) -> str:
    """Names the base and the reachable extensions: all weights that compute now."""
    parts = [model.base_fingerprint()]
    for name in expand.scope_of(model.lm).active:
        parts.append(tensors_digest(dict(expand.new_parameters(model.lm, name))))
    return "-".join(parts)
