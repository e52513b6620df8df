"""Tensors in a folder: STEM.safetensors with the tensors, and STEM.json (the card) with their SHA-256."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from moextend.errors import InputError
from moextend.util import files

FORMAT = 1
"""Version of the files; a card with another version is refused."""
STEM = "extension"
"""Stem of the files of an extension: extension.safetensors and extension.json."""
CHUNK = 1 << 22
"""Numbers per read."""
READABLE = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
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
    where = str(folder / f"{stem}.json")
    if isinstance(found, int) and found > FORMAT:
        raise InputError(
            f"has format {found}, and this version of moextend reads format {FORMAT}.",
            where=where,
            hint="Use a newer version of moextend.",
        )
    raise InputError(
        f"has no known format ({found!r}; known: {FORMAT}).",
        where=where,
        hint="Remove the folder, and create it again.",
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
            hint="Copy the folder again, or create it again.",
        )


@torch.no_grad()
def read_into(path: Path, places: Mapping[str, Tensor]) -> None:
    """Fills float32 tensors (contiguous) from a safetensors file, without a copy of the file in memory.

    safetensors would map the file or read complete tensors, which temporarily doubles the memory of the largest one.
    Here it gives only the offsets, and the bytes are read in chunks. Shorter number types are converted to float32.

    Raises:
        InputError: the file has other names, shapes or types than `places`, or a value that is not finite.
    """
    held = shapes(path)
    if {name: shape for name, (shape, _) in held.items()} != {n: tuple(p.shape) for n, p in places.items()}:
        raise misfit(path)
    sizes = {name: math.prod(shape) * READABLE[kind].itemsize for name, (shape, kind) in held.items()}
    with path.open("rb", buffering=0) as file:
        # The format has no gaps between tensors and no bytes after them.
        file.seek(path.stat().st_size - sum(sizes.values()))
        for name, (_, kind) in held.items():
            for piece in torch.split(places[name].detach().view(-1), CHUNK):
                straight = piece.device.type == "cpu" and READABLE[kind] == piece.dtype
                buffer = piece if straight else torch.empty(piece.shape, dtype=READABLE[kind])
                _fill(file, buffer, path)
                _check_finite(path, name, buffer)
                if not straight:
                    piece.copy_(buffer)


def shapes(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and type of the tensors in a file, in the order of their bytes; InputError for other types."""
    held: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.offset_keys():
                part = file.get_slice(name)
                held[name] = (tuple(part.get_shape()), part.get_dtype())
    except SafetensorError as error:
        raise _unreadable(path, error) from error
    if any(kind not in READABLE for _, kind in held.values()):
        raise misfit(path)
    return held


def misfit(path: Path) -> InputError:
    """Error for a file with other tensors than its card describes."""
    return InputError(
        f"holds other tensors than {STEM}.json says.", where=str(path), hint="Train the extension again."
    )


def _fill(file: io.FileIO, buffer: Tensor, path: Path) -> None:
    rest = memoryview(buffer.view(torch.uint8).numpy().data)
    while len(rest):
        count = file.readinto(rest)
        if not count:
            raise InputError(
                "ends too early.",
                where=str(path),
                hint="Copy the folder again, or create it again.",
            )
        rest = rest[count:]


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    # Minimum and maximum propagate NaN, and need no memory of the tensor's size.
    if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise InputError(
            f"tensor '{name}' holds numbers that are not finite (NaN or infinite).",
            where=str(path),
            hint="Its training diverged: train it again with a lower learning rate.",
        )


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"is not a safetensors file ({error}).",
        where=str(path),
        hint="Copy the folder again, or create it again.",
    )
