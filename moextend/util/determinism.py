"""Deterministic computation: the same command gives the same bits again on the same device with the same versions.

A CPU needs none of this. What differs from call to call on a GPU is listed in docs/reliability.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
    from torch.nn.attention import SDPBackend, sdpa_kernel

    memory: Any = torch.utils.deterministic  # its setting has no type
    variables = {name: os.environ.get(name) for name in VARIABLES}
    with ExitStack() as stack:
        stack.callback(_restore, variables)
        stack.callback(setattr, memory, "fill_uninitialized_memory", memory.fill_uninitialized_memory)
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        stack.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        os.environ.update(VARIABLES)
        torch.use_deterministic_algorithms(True)
        # Filling new memory only costs time: no result is read from it.
        memory.fill_uninitialized_memory = False
        if torch.cuda.is_available():  # on a CPU the other switches change the last bits
            torch.set_float32_matmul_precision("highest")
            flags = torch.backends.cudnn.flags(
                enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
            )
            stack.enter_context(flags)
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _restore(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
