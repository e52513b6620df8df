"""Fingerprints of weights: short digests of tensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from xxhash import xxh3_64_hexdigest, xxh3_128

PIECE = 1 << 24
"""Numbers of a tensor that are rounded at a time."""


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


def rounded_digest(
    tensors: Mapping[str, Tensor], known: Mapping[str, tuple[torch.Size, str]] | None = None
) -> str:
    """Sixteen hex digits over names, shapes and values rounded to bfloat16 (xxh3).

    Equal for a checkpoint loaded as float32, bfloat16 or quantised, and also as float16 if its numbers fit.

    Args:
        known: name -> shape and `Rounded` digest of further tensors, which are no longer in memory.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        hashes = threads.map(lambda name: Rounded().add(tensors[name]).digest, tensors)
        found = {name: (tensors[name].shape, each) for name, each in zip(tensors, hashes, strict=True)}
    facts = [
        f"{name}|{tuple(shape)}|{each}" for name, (shape, each) in sorted({**found, **(known or {})}.items())
    ]
    return xxh3_64_hexdigest("\n".join(facts).encode())


class Rounded:
    """Digest of one tensor's values rounded to bfloat16, which may be given piece by piece."""

    def __init__(self) -> None:
        self._hasher = xxh3_128()

    def add(self, tensor: Tensor) -> Rounded:
        """Adds the next values; returns itself."""
        for piece in torch.split(tensor.detach().flatten(), PIECE):
            self._hasher.update(_bytes(piece.bfloat16() if piece.is_floating_point() else piece))
        return self

    @property
    def digest(self) -> str:
        """Hex digits over the values so far."""
        return self._hasher.hexdigest()


def _facts(name: str, tensor: Tensor) -> bytes:
    return f"{name}|{tuple(tensor.shape)}|{tensor.dtype}".encode()


def _bytes(tensor: Tensor) -> memoryview:
    raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return memoryview(raw.numpy().data)
