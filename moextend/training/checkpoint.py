"""Whether a checkpoint is complete: a manifest of its files, written last, and tensor files with checksums."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from xxhash import xxh3_128

from moextend.errors import InputError
from moextend.model.fingerprint import tensors_digest
from moextend.util import files

MANIFEST = "manifest.json"
"""Name -> size and digest (XXH3, 128 bits) of every file of a checkpoint."""
DIGEST = "digest"
"""Key of the identity in the header of a file of tensors."""
BLOCK = 1 << 22
"""Bytes per read."""


def seal(folder: Path) -> None:
    """Writes the manifest of a checkpoint; a checkpoint without it is ignored."""
    found = {path.name: _facts(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    files.write_json(folder / MANIFEST, found)


def problem(folder: Path) -> str | None:
    """Problem of a checkpoint; None if every file is as it was written."""
    try:
        known = dict(files.read_json(folder / MANIFEST))
        if not known:
            return f"{MANIFEST} names no file"
        for name, facts in known.items():
            if (folder / name).stat().st_size != facts["bytes"]:
                return f"{name} has another size"
            if _facts(folder / name) != facts:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except (InputError, KeyError, TypeError, ValueError):
        return f"{MANIFEST} is damaged"
    return None


def _facts(path: Path) -> dict[str, Any]:
    hasher, size = xxh3_128(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            hasher.update(block)
            size += len(block)
    return {"bytes": size, "xxh3": hasher.hexdigest()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors atomically, with their identity in the header."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.atomic(path) as temporary:
        save_file(ready, temporary, metadata={DIGEST: tensors_digest(ready)})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors from a file of `write_tensors`.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            named = (file.metadata() or {}).get(DIGEST)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError("no such file.", where=str(path), hint="Make it again.") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"is damaged ({error}).", where=str(path), hint="Make it again.") from error
    if tensors_digest(tensors) != named:
        raise InputError(
            "is damaged: its tensors are not those that were written.", where=str(path), hint="Make it again."
        )
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise InputError("holds numbers that are not finite.", where=str(path), hint="Make it again.")
    return tensors
