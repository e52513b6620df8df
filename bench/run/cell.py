"""The lines of scores.jsonl: a cell, the id of its run, and a digest of both."""

from __future__ import annotations

from typing import Any, TypeVar

from moextend.bench.score.records import Cell
from moextend.errors import SpecError
from moextend.util.files import digest

DIGEST = "digest"
"""Key of the digest of all other keys of a line; lines of early versions have none."""
Key = tuple[int, str]
"""A cell: (stage, task)."""
C = TypeVar("C", bound=Cell)


def line_of(cell: Cell, run: str) -> dict[str, Any]:
    """The cell as a line of scores.jsonl, with a digest of the line."""
    short = cell.batch_size is not None
    record = {**cell.model_dump(exclude=None if short else {"batch_size"}), "run": run}
    return {**record, DIGEST: _digest(record)}


def _digest(record: dict[str, Any]) -> str:
    return digest({key: value for key, value in record.items() if key != DIGEST})


def parse_cell(record: Any, where: str, run: str, kind: type[C]) -> C:
    """Cell of a kind from a line; SpecError if it is not one, was changed, or belongs to another run."""
    hint = "Remove the line, or run again: the cell is scored again."
    if not isinstance(record, dict):
        raise SpecError("not a scored cell.", where=where, hint=hint)
    if run and record.get("run", run) != run:
        raise SpecError("is a cell of another run.", where=where, hint=hint)
    if record.get(DIGEST, "") not in ("", _digest(record)):
        raise SpecError("was changed since it was scored.", where=where, hint=hint)
    values = {key: value for key, value in record.items() if key not in ("run", DIGEST)}
    try:
        return kind.parse(values, where=where)
    except SpecError as error:
        raise SpecError(f"not a scored cell: {error.what}", where=where, hint=hint) from error
