"""Fingerprints of weights: short digests of tensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from xxhash import xxh3_64_hexdigest, xxh3_128

from moextend.model.base_name import base_name as base_name
from moextend.model.base_name import base_parts as base_parts

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
    for piece in torch.split(tensor.detach().flatten(), PIECE):
        hasher.update(_bytes(piece.bfloat16() if piece.is_floating_point() else piece))
    return hasher.hexdigest()


def _facts(name: str, tensor: Tensor) -> bytes:
    return f"{name}|{tuple(tensor.shape)}|{tensor.dtype}".encode()


def _bytes(tensor: Tensor) -> memoryview:
    raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return memoryview(raw.numpy().data)
