"""Ways to damage a file or folder."""

# Some of them do one of two things in one expression.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Way = Callable[[Path], object]

FLIPPED = 64


def delete(path: Path) -> None:
    """Removes the file or folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def empty(path: Path) -> None:
    """Leaves nothing in the file."""
    path.write_bytes(b"")


def cut(path: Path) -> None:
    """Leaves the first two thirds of the file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def garbage(path: Path) -> None:
    """Writes random bytes of the same length."""
    path.write_bytes(bytes((i * 7919 + i // 256) % 256 for i in range(max(40, path.stat().st_size))))


def flip(path: Path) -> None:
    """Turns one bit of the last byte but FLIPPED over."""
    content = bytearray(path.read_bytes())
    content[-min(FLIPPED, len(content))] ^= 4
    path.write_bytes(content)


def as_folder(path: Path) -> None:
    """Puts a folder with a file in the place of the file."""
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def as_file(path: Path) -> None:
    """Puts a file in the place of the folder."""
    shutil.rmtree(path)
    path.write_text("x")


def dangling(path: Path) -> None:
    """Puts a link to nothing in the place of the file."""
    path.unlink()
    path.symlink_to("nowhere")


def as_fifo(path: Path) -> None:
    """Puts a FIFO, which nobody writes to, in the place of the file."""
    path.unlink()
    os.mkfifo(path)


def deep(path: Path) -> None:
    """Writes JSON that nests deeper than Python's stack."""
    path.write_text("[" * 100_000 + "\n")


def listed(path: Path) -> None:
    """Writes JSON of another kind."""
    path.write_text("[1, 2]\n")


def wide(path: Path) -> None:
    """Writes the text as UTF-16, as some editors do."""
    path.write_bytes(path.read_bytes().decode().encode("utf-16"))


def linked(path: Path) -> None:
    """Moves the file elsewhere and links to it: nothing is lost."""
    elsewhere = path.parent.parent / f"moved-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def not_finite(path: Path) -> None:
    """Fills the tensors with NaN."""
    tensors = {name: torch.full_like(tensor, float("nan")) for name, tensor in load_file(path).items()}
    save_file(tensors, path)


def edit(path: Path, **changes: Any) -> None:
    """Changes entries of a JSON object; None removes one."""
    content = json.loads(path.read_text())
    content.update({key: value for key, value in changes.items() if value is not None})
    for key in [key for key, value in changes.items() if value is None]:
        content.pop(key, None)
    path.write_text(json.dumps(content))


def lines(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Changes the records of a file of JSON lines."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


WAYS: dict[str, Way] = {
    "deleted": delete, "empty": empty, "cut": cut, "garbage": garbage, "flipped": flip,
    "a folder": as_folder, "a dangling link": dangling, "a FIFO": as_fifo, "nested deep": deep, "a list": listed,
    "UTF-16": wide, "linked": linked, "NaN": not_finite,
}  # fmt: skip
