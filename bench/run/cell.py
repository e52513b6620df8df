"""One scored cell of a run's matrix, as a line of scores.jsonl keeps it."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from moextend.errors import SpecError
from moextend.util.files import digest

DIGEST = "digest"
"""Of all other keys of a line; lines of early versions have none."""
Key = tuple[int, str]
"""A cell: (stage, task)."""


@dataclass(frozen=True)
class Cell:
    """One scored cell of the matrix."""

    stage: int
    """0 is the base as it is."""
    task: str
    value: float
    """0..100."""
    stderr: float | None = None
    """Standard error of `value` over items, in points."""
    n: int = 0
    """Items scored."""
    scorer: str = ""
    weights: str = ""
    """Fingerprint of the weights that were scored."""
    predictions: str | None = None
    """File with one line an item, relative to the run's folder."""
    seconds: float = 0.0
    size: int | None = None
    """Bytes of that file; likewise `sha256`. Of lines of early versions not known."""
    sha256: str = ""
    by_kind: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


_NEEDED = frozenset(("stage", "task", "value"))
_KNOWN = frozenset(field.name for field in fields(Cell))


def line_of(cell: Cell, run: str) -> dict[str, Any]:
    """The cell as a line of scores.jsonl, with a digest of what the line holds."""
    record = {**asdict(cell), "run": run}
    return {**record, DIGEST: _digest(record)}


def _digest(record: dict[str, Any]) -> str:
    return digest({key: value for key, value in record.items() if key != DIGEST})


def parse_cell(record: Any, where: str, run: str) -> Cell:
    """The cell in a line of scores.jsonl; SpecError where it is none, was changed, or is of another run than `run`."""
    hint = "Remove the line, or run again: the cell is scored again."
    if not isinstance(record, dict):
        raise SpecError("not a scored cell.", where=where, hint=hint)
    if run and record.get("run", run) != run:
        raise SpecError("is a cell of another run.", where=where, hint=hint)
    if record.get(DIGEST, "") not in ("", _digest(record)):
        raise SpecError("was changed since it was scored.", where=where, hint=hint)
    record = {key: value for key, value in record.items() if key not in ("run", DIGEST)}
    if not _NEEDED <= record.keys() <= _KNOWN:
        raise SpecError("not a scored cell.", where=where, hint=hint)
    cell = Cell(**record)
    if not _sound(cell):
        raise SpecError("not a scored cell: a value is of the wrong type.", where=where, hint=hint)
    return cell if isinstance(cell.value, float) else replace(cell, value=float(cell.value))


def _sound(cell: Cell) -> bool:
    """Whether the values are of the right types, and the predictions lie in the run's folder."""
    numbers = [cell.value, cell.seconds, *([] if cell.stderr is None else [cell.stderr])]
    path = cell.predictions
    return (
        isinstance(cell.stage, int)
        and isinstance(cell.task, str)
        and isinstance(cell.n, int)
        and all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)
        and isinstance(cell.by_kind, dict)
        and isinstance(cell.extra, dict)
        and (path is None or (isinstance(path, str) and _inside(path)))
    )


def _inside(path: str) -> bool:
    parts = path.replace(os.sep, "/").split("/")
    outside = parts[0] == "" or ":" in parts[0] or ".." in parts  # absolute, a drive of Windows, or above
    return not outside and any(part not in ("", ".") for part in parts)
