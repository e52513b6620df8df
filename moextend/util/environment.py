"""The environment of a run: versions, commit, hardware. It is recorded with every run and never compared."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of x86 (two) and of ARM."""
PACKAGES = (
    "moextend", "torch", "transformers", "accelerate", "peft", "open_clip_torch", "lm-eval", "datasets",
    "safetensors", "pillow", "numpy",
)  # fmt: skip


def environment(**more: Any) -> dict[str, Any]:
    """Versions of packages that scores depend on, the commit, the machine, and `more` (device, threads)."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit(Path(__file__).resolve().parent),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "processor": processor(),
        "bfloat16": not lacks_bfloat16(),
        **more,
    }


def lacks_bfloat16() -> bool:
    """Whether the CPU is known to have no instructions for bfloat16; False where the system does not tell its flags."""
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    return bool(flags) and not BFLOAT16 & set(flags.split())


@cache
def processor() -> str:
    """Architecture and model: libraries choose their kernels by both."""
    return f"{platform.machine()} {_cpuinfo('model name') or platform.processor()}"


def _cpuinfo(key: str) -> str:
    """The value of a key for the first core; "" if it is not known."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def code() -> dict[str, str | None]:
    """Version and commit of this package; None for a commit that is not known."""
    return {"version": _version("moextend"), "commit": _head(Path(__file__).resolve().parent)}


def commit(folder: Path) -> dict[str, Any] | None:
    """The commit and whether tracked files differ from it; None if this code is not in a git checkout."""
    head = _head(folder)
    if head is None:
        return None
    changes = _git(folder, "status", "--porcelain", "-uno")
    return {"commit": head, "dirty": bool(changes and changes.strip())}


def _head(folder: Path) -> str | None:
    # An installed package may lie inside somebody else's checkout: ask for a file of ours.
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    head = _git(folder, "rev-parse", "HEAD")
    return None if head is None else head.strip()


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


__version__ = _version("moextend") or "0.0.0"
