"""Deterministic computation: the same command gives the same bits again on the same device with the same versions.

A CPU needs none of this. What differs from call to call on a GPU is listed in docs/reliability.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VARIABLES = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}
"""Environment variables that cuBLAS and flash-attn read when they are first used."""


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Context in which PyTorch uses deterministic algorithms only, and on a GPU no TF32; afterwards as before.

    An operation that has no deterministic algorithm on the device raises RuntimeError. On a GPU,
    `scaled_dot_product_attention` computes plain products. Has no effect if not `wanted`.
    """
    if not wanted:
        yield
        return
    import torch

    variables = {name: os.environ.get(name) for name in VARIABLES}
    before = _now()
    os.environ.update(VARIABLES)
    gpu = dict.fromkeys(before, False) | {"cudnn.deterministic": True, "precision": "highest"}
    # Filling new memory only costs time: no result is read from it. On a CPU the other switches change the last bits.
    _set((gpu if torch.cuda.is_available() else before) | {"algorithms": True, "warn": False, "fill": False})
    try:
        yield
    finally:
        _set(before)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _now() -> dict[str, Any]:
    """The current values of what `_set` sets."""
    import torch

    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": _memory().fill_uninitialized_memory,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "precision": torch.get_float32_matmul_precision(),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
    }


def _set(values: dict[str, Any]) -> None:
    import torch

    torch.use_deterministic_algorithms(values["algorithms"], warn_only=values["warn"])
    _memory().fill_uninitialized_memory = values["fill"]
    torch.backends.cudnn.benchmark = values["cudnn.benchmark"]
    torch.backends.cudnn.allow_tf32 = values["cudnn.allow_tf32"]
    torch.backends.cudnn.deterministic = values["cudnn.deterministic"]
    torch.set_float32_matmul_precision(values["precision"])
    torch.backends.cuda.enable_flash_sdp(values["flash"])
    torch.backends.cuda.enable_mem_efficient_sdp(values["efficient"])
    torch.backends.cuda.enable_cudnn_sdp(values["cudnn"])


def _memory() -> Any:
    """torch.utils.deterministic, whose setting has no type."""
    import torch

    return torch.utils.deterministic
