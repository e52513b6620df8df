"""Cells with only the values that a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moextend.bench.score.records import Cell
from moextend.util import files


def cell_of(stage: int, task: str, value: float, *, folder: Path | None = None, **more: Any) -> Cell:
    """A cell. `folder`: the run that has its file of predictions."""
    known: dict[str, Any] = {"n": 1, "scorer": "exact@1", "weights": "", "size": 0, "sha256": ""}
    if folder is not None:
        path = folder / more["predictions"]
        known |= {"size": path.stat().st_size, "sha256": files.sha256(path)}
    return Cell(stage=stage, task=task, value=value, **{**known, **more})
