"""Tensors in a folder: STEM.safetensors with a card (STEM.json) that has their SHA-256, and files that state theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from moextend.errors import InputError
from moextend.model.fingerprint import tensors_digest
from moextend.util import files

AGAIN = "Copy it again, or make it again."
STATED = "identity"
"""Key in the header of a file of tensors: its digest, and a note."""
FORMAT = 1
"""Version of the files; a card with another version is refused."""
STEM = "extension"
"""Stem of the files of an extension: extension.safetensors and extension.json."""
READABLE = ("F32", "BF16", "F16")
"""Number types that convert to float32 exactly."""


def save_tensors(
    folder: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any], stem: str = STEM
) -> None:
    """Writes tensors, then the card with the format and the SHA-256; a folder without a card is incomplete."""
    try:
        with files.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError("is not a folder.", where=str(folder), hint="Name a new folder.") from error
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.atomic(folder / f"{stem}.safetensors") as path:
        save_file(ready, path)
        digest = files.sha256(path)
    files.write_json(folder / f"{stem}.json", {"format": FORMAT, "sha256": digest, **card})


def load_tensors(folder: Path, stem: str = STEM) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and card of a folder.

    Raises:
        InputError: the folder is incomplete, damaged or of another format, or a tensor has a value that is not finite.
    """
    card, path = read_card(folder, stem), folder / f"{stem}.safetensors"
    check_sum(folder, card, stem)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise _unreadable(path, error) from error
    for name, tensor in tensors.items():
        _check_finite(path, name, tensor)
    return tensors, card


def read_card(folder: Path, stem: str = STEM) -> dict[str, Any]:
    """Content of the JSON file; InputError if a file is missing or the format is another one."""
    if not folder.exists():
        raise InputError("no such folder.", where=str(folder), hint="Check the path.")
    for name in (f"{stem}.safetensors", f"{stem}.json"):
        if not (folder / name).is_file():
            raise InputError(
                f"holds no {stem} ({name} is missing).",
                where=str(folder),
                hint=f"Name a folder that an {stem} was saved to." if stem == STEM else "Check the path.",
            )
    card = files.read_json(folder / f"{stem}.json")
    found = card.get("format") if isinstance(card, dict) else None
    if found == FORMAT:
        return cast(dict[str, Any], card)
    raise InputError(
        f"has format {found!r}, and this version of moextend reads format {FORMAT}.",
        where=str(folder / f"{stem}.json"),
        hint="Use the version that wrote it, or create it again.",
    )


def is_complete(folder: Path, stem: str = STEM) -> bool:
    """Whether both files are there: the card is written last."""
    return all((folder / f"{stem}.{end}").is_file() for end in ("json", "safetensors"))


def check_sum(folder: Path, card: Mapping[str, Any], stem: str = STEM) -> None:
    """Raises InputError if the tensors do not have the SHA-256 of the card."""
    path = folder / f"{stem}.safetensors"
    if files.sha256(path) != card.get("sha256"):
        raise InputError(
            f"is damaged: its SHA-256 is not the one that {stem}.json names.",
            where=str(path),
            hint=AGAIN,
        )


@torch.no_grad()
def read_into(path: Path, places: Mapping[str, Tensor]) -> None:
    """Fills float32 tensors from a safetensors file, one after the other.

    Raises:
        InputError: the file has other names, shapes or types than `places`, or a value that is not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            wanted = {name: list(place.shape) for name, place in places.items()}
            exact = all(part.get_dtype() in READABLE for part in held.values())
            if not exact or {name: part.get_shape() for name, part in held.items()} != wanted:
                raise InputError(
                    f"holds other tensors than {STEM}.json says.", where=str(path),
                    hint="Train the extension again.",
                )  # fmt: skip
            for name, place in places.items():
                values = file.get_tensor(name)
                _check_finite(path, name, values)
                place.copy_(values)
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], note: str = "") -> None:
    """Writes one file of tensors that states its identity and a note in its header."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.atomic(path) as temporary:
        # One key: safetensors writes several in any order, and equal tensors would be unequal files.
        save_file(ready, temporary, metadata={STATED: f"{_identity(ready, note)} {note}"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors from a file of `write_tensors`; raises as `read_noted`."""
    return read_noted(path)[0]


def read_noted(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors and note from a file of `write_tensors`.

    Raises:
        InputError: the file is missing or damaged, or a value is not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            stated, _, note = (file.metadata() or {}).get(STATED, "").partition(" ")
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError("no such file.", where=str(path), hint=AGAIN) from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"is damaged ({error}).", where=str(path), hint=AGAIN) from error
    if stated != _identity(tensors, note):
        raise InputError(
            "is damaged: its tensors are not those that were written.", where=str(path), hint=AGAIN
        )
    for name, tensor in tensors.items():
        _check_finite(path, name, tensor)
    return tensors, note


def _identity(tensors: Mapping[str, Tensor], note: str) -> str:
    return files.digest(tensors_digest(tensors), note)


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    # Minimum and maximum propagate NaN, and need no memory of the tensor's size.
    if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise InputError(
            f"tensor '{name}' holds numbers that are not finite (NaN or infinite).",
            where=str(path),
            hint="Its training diverged: train it again with a lower learning rate.",
        )


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"is not a safetensors file ({error}).", where=str(path), hint=AGAIN)
