"""What the processor of this machine computes in hardware."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of x86 (two) and of ARM."""
SLOW_BFLOAT16 = (
    "this CPU has no instructions for bfloat16 (AVX512_BF16 or AMX), so products take several times as long as in "
    "float32. With a float32 base and bf16: false a step is faster, and takes more memory."
)


def lacks_bfloat16() -> bool:
    """Whether the CPU is known to have no instructions for bfloat16; False where the system does not tell its flags."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return bool(flags) and not BFLOAT16 & set(flags.split())
