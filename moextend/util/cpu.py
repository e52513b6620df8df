"""Products in bfloat16 on a processor without instructions for them."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of x86 (two) and of ARM."""
PRODUCTS = {"mm": 2, "bmm": 2, "addmm": 3, "baddbmm": 3, "_grouped_mm": 2}
"""Products of torch that are slow in bfloat16 on such a CPU -> how many matrices they take."""
ROWS, TERMS = 4, 1 << 17
"""A product with fewer rows, columns or terms of a sum, or with fewer terms in all, stays as it is: casting would take
longer than it saves."""
PIECE, COLUMNS = 1 << 20, 64
"""Numbers of the right matrix of `mm` that are cast at a time, and least columns: memory for all of a large one would
be new in each product, and to get it takes longer than the product of a few rows."""
ALIGNED = 8
"""Columns of bfloat16 in 16 bytes: torch refuses other strides of grouped products, and aligns their results."""

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

    Only on a CPU without instructions for bfloat16, where torch otherwise takes many times as long. The instructions
    also add in float32 and round the sum, so results differ as they do between any two CPUs: by the order of sums.
    Another call does nothing.

    Small products and those of other dtypes are torch's own, but start 4 to 6 µs later (a linear layer 10 µs; 15 where
    a gradient is recorded), and other Python threads wait for them. Products with `out`, in place or in compiled code
    stay slow in bfloat16. A product needs memory for its matrices in float32. As products in float32, those of a forked
    process wait forever if its parent multiplied with several threads: start processes with `spawn`.
    """
    import torch

    with _lock:
        if _replaced or not lacks_bfloat16():
            return
        library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*overrid")
            for name in PRODUCTS:
                library.impl(name, _in_float32(name), "CPU", with_keyset=True, allow_override=True)
        _replaced.append(library)


def _in_float32(name: str) -> Callable[..., Any]:
    """The kernel of a product that casts large bfloat16 matrices to float32, and gives all others to torch's own."""
    import torch
    from torch import bfloat16

    count = PRODUCTS[name]
    own = torch.library.get_kernel(f"aten::{name}", "CPU").call_boxed
    # The overloads with `out` are still torch's own, which let other Python threads run; a grouped product has none.
    into = None if name == "_grouped_mm" else getattr(torch, name)

    def product(keys: Any, *args: Any, **options: Any) -> Any:
        with torch._C.DisableTorchFunction():  # modes and subclasses have seen the product itself
            matrices, more = args[:count], args[count:]
            if any(each.dtype is not bfloat16 for each in matrices) or not _large(*matrices[-2:]):
                return own(keys, *args, **options)
            if into is not None:
                if name == "mm" and _divisible(*matrices):
                    return _in_pieces(*matrices)
                return _rounded(into, *(each.float() for each in matrices), *more, **options)
            if options or len(more) > 1 or not all(map(_aligned, matrices)):
                return own(keys, *args, **options)
            return own(keys, *(each.float() for each in matrices), *more).bfloat16()

    _never_compiled(product)
    return product


def _rounded(product: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    """A product of float32 matrices in bfloat16."""
    import torch

    out = torch.empty(0, dtype=torch.float32, device="cpu")
    return product(*args, **options, out=out).bfloat16()


def _divisible(left: Tensor, right: Tensor) -> bool:
    """Whether the right matrix is cast in pieces; one that does not fit the left one has torch's own error."""
    return right.numel() > PIECE and left.dim() == right.dim() == 2 and left.shape[1] == right.shape[0]


def _in_pieces(left: Tensor, right: Tensor) -> Tensor:
    import torch

    wide, columns = left.float(), max(COLUMNS, PIECE // right.shape[0])
    pieces = right.split(columns, dim=1)
    return torch.cat([_rounded(torch.mm, wide, piece.float()) for piece in pieces], dim=1)


def _never_compiled(function: Callable[..., Any]) -> None:
    """torch.compile, which sees a kernel in Python where a graph breaks, runs it as it is.

    torch.compiler.disable would take time in every product, and an interrupt in its switch ends as a SystemError.
    """
    from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy

    skipped = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)
    set_code_exec_strategy(function.__code__, skipped)


def _large(left: Tensor, right: Tensor) -> bool:
    if left.dim() < 2 or right.dim() < 2:
        return False
    sides = (left.shape[-2], left.shape[-1], right.shape[-1])
    return min(sides) >= ROWS and math.prod(sides) >= TERMS


def _aligned(matrix: Tensor) -> bool:
    """Whether a grouped product takes a matrix in bfloat16 and gives the same strides as in float32."""
    (rows, columns), (height, width) = matrix.stride()[-2:], matrix.shape[-2:]
    step, least = (rows, width) if columns == 1 else (columns, height)
    return 1 in (rows, columns) and step >= least and step % ALIGNED == 0 and width % ALIGNED == 0
