"""The harness: sequences of stages, learned by several methods and scored after every stage.

    from moextend import bench
    results = bench.frame("tiny", workspace="demo")     # pandas, a row an answered item
    (experiment,) = bench.experiments("tiny", workspace="demo")

docs/figures.md shows both in use. Names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moextend.bench.report import frame as _frame

    experiments, frame = _frame.read_experiments, _frame.read_frame

_HOME = {"experiments": "read_experiments", "frame": "read_frame"}  # name -> function of report.frame
__all__ = sorted(_HOME)


if not TYPE_CHECKING:  # a type checker knows the names above, and finds a misspelt one

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module("moextend.bench.report.frame"), _HOME[name])
        raise AttributeError(f"module 'moextend.bench' has no attribute '{name}'")
