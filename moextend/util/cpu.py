"""Products in bfloat16 on a processor without instructions for them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of x86 (two) and of ARM."""
PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "_grouped_mm": 0}
"""Products of torch that are slow in bfloat16 on such a CPU, and which argument is the first of the two matrices."""
SMALL = 4
"""Products with fewer rows, columns or terms are not slow: of one token, for example."""

_replaced: list[Any] = []  # holds the library of kernels: without it torch takes its own again
_lock = threading.Lock()


def lacks_bfloat16() -> bool:
    """Whether the CPU is known to have no instructions for bfloat16; False where the system does not tell its flags."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return bool(flags) and not BFLOAT16 & set(flags.split())


def multiply_in_float32() -> None:
    """From now on this process multiplies bfloat16 matrices on the CPU in float32, and rounds the product to bfloat16.

    Only on a CPU without instructions for bfloat16, where torch otherwise takes 8 to 50 times as long. The
    instructions also add in float32 and round the sum, so results differ as they do between any two CPUs: by the order
    of sums. Another call does nothing.
    """
    import torch

    with _lock:
        if _replaced or not lacks_bfloat16():
            return
        library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*overrid")
            for name, first in PRODUCTS.items():
                kernel = torch.library.get_kernel(f"aten::{name}", "CPU").call_boxed
                product = _in_float32(kernel, first)
                library.impl(name, product, "CPU", with_keyset=True, allow_override=True)
        _replaced.append(library)


def _in_float32(kernel: Callable[..., Any], first: int) -> Callable[..., Any]:
    """`kernel` of a product, computing in float32 if its matrices (arguments `first` and the next) are bfloat16."""
    from torch import Tensor, bfloat16

    def product(keys: Any, *args: Any, **options: Any) -> Any:
        left, right = args[first : first + 2]
        if left.dtype is not bfloat16 or min(*left.shape[-2:], right.shape[-1]) < SMALL:
            return kernel(keys, *args, **options)
        wide = [
            each.float() if isinstance(each, Tensor) and each.dtype is bfloat16 else each for each in args
        ]
        return kernel(keys, *wide, **options).bfloat16()

    return product
