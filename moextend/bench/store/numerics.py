"""What the last bits of a result depend on besides its inputs: the device, the libraries and the code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import moextend
from moextend.util.environment import processor

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "numpy",
    "pillow",
    "lm-eval",
    "datasets",
)
"""Packages that compute weights and answers."""
APART = (
    "cli/", "bench/bridge.py", "bench/figures/", "bench/perf/", "bench/report/", "bench/store/", "bench/workspace/",
)  # fmt: skip
"""Starts of the paths of modules whose code changes neither weights nor answers."""
SWITCHES = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "WORLD_SIZE")
"""Environment variables that change results."""


def numerics(device: torch.device) -> dict[str, Any]:
    """Device, threads, versions, switches and code: runs share a result only if all of them are equal."""
    import torch

    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else device.type,
        "cpu": "" if gpu else processor(),
        "threads": 0 if gpu else torch.get_num_threads(),
        "capability": "" if gpu else torch.backends.cpu.get_cpu_capability(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ},
        "packages": _versions(),
        "code": code_digest(),
    }


@cache
def code_digest() -> str:
    """Sixteen hex digits over the package's source files, without those that change no result (`APART`)."""
    root = Path(moextend.__file__).parent
    hasher = hashlib.sha256()
    for name, path in sorted(_sources(root)):
        data = path.read_bytes()
        hasher.update(f"{name} {len(data)}\n".encode())
        hasher.update(data)
    return hasher.hexdigest()[:16]


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        if not name.startswith(APART):
            yield name, path


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
