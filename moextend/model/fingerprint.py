"""Fingerprints of weights: short digests of tensors, with a cache for bases of many gigabytes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from xxhash import xxh3_64_hexdigest, xxh3_128, xxh3_128_hexdigest

from moextend.errors import MoextendError
from moextend.model.base_name import base_name as base_name
from moextend.model.base_name import base_parts as base_parts
from moextend.util import files

LARGE = 1 << 26
"""Minimum size in bytes of tensors with an entry in the cache."""
ENTRY = re.compile(r"([0-9a-f]{16}) ([0-9a-f]{16})\n")
"""Content of a file of the cache: a digest, and a checksum of the key and the digest."""


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen hex digits over names, shapes, types and bytes of tensors (SHA-256)."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(_facts(name, tensors[name]))
        hasher.update(_bytes(tensors[name]))
    return hasher.hexdigest()[:16]


def tensor_hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> SHA-256 over shape, type and bytes of each tensor."""

    def hashed(name: str) -> str:
        hasher = hashlib.sha256(_facts(name, tensors[name]))
        hasher.update(_bytes(tensors[name]))
        return hasher.hexdigest()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return dict(zip(tensors, threads.map(hashed, tensors), strict=True))


def cached_digest(tensors: Mapping[str, Tensor]) -> str:
    """`tensors_digest` with a cache: for large tensors, SHA-256 runs only once per user and content.

    SHA-256 is sequential and reads 0.5 to 2 GiB/s. The cache key is the xxh3 hash of the bytes, computed per tensor in
    threads, and the cache is in $XDG_CACHE_HOME/moextend. The key depends only on the tensors in memory, so changed
    files, another dtype or random weights cannot give a wrong digest.
    """
    if sum(tensor.nbytes for tensor in tensors.values()) < LARGE:
        return tensors_digest(tensors)
    key = _quick(tensors)
    place = _folder() / key
    if (known := _read(place)) is not None:
        return known
    found = tensors_digest(tensors)
    with suppress(MoextendError, OSError):  # a cache that cannot be written costs time only
        files.write_text(place, f"{found} {_check(key, found)}\n")
    return found


def rounded_digest(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen hex digits over names, shapes and values rounded to bfloat16 (xxh3).

    Equal for a checkpoint loaded as float32 and as bfloat16, and also as float16 if its numbers fit.
    """
    names = sorted(tensors)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        hashes = list(threads.map(lambda name: _rounded(tensors[name]), names))
    facts = [f"{n}|{tuple(tensors[n].shape)}|{each}" for n, each in zip(names, hashes, strict=True)]
    return xxh3_64_hexdigest("\n".join(facts).encode())


def _rounded(tensor: Tensor) -> str:
    hasher = xxh3_128()
    for piece in torch.split(tensor.detach().flatten(), LARGE // 4):
        hasher.update(_bytes(piece.bfloat16() if piece.is_floating_point() else piece))
    return hasher.hexdigest()


def _quick(tensors: Mapping[str, Tensor]) -> str:
    """32 hex digits over the same facts and bytes (xxh3)."""
    names = sorted(tensors)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        hashes = list(threads.map(lambda name: xxh3_128_hexdigest(_bytes(tensors[name])), names))
    facts = [_facts(name, tensors[name]) + each.encode() for name, each in zip(names, hashes, strict=True)]
    return xxh3_128_hexdigest(b"\n".join(facts))


def _facts(name: str, tensor: Tensor) -> bytes:
    return f"{name}|{tuple(tensor.shape)}|{tensor.dtype}".encode()


def _bytes(tensor: Tensor) -> memoryview:
    raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return memoryview(raw.numpy().data)


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "moextend" / "fingerprints"


def _check(key: str, found: str) -> str:
    return xxh3_64_hexdigest(f"{key} {found}".encode())


def _read(place: Path) -> str | None:
    """Cached digest of a key; None if there is none or it is damaged."""
    try:
        entry = ENTRY.fullmatch(place.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return entry[1] if entry and entry[2] == _check(place.name, entry[1]) else None
