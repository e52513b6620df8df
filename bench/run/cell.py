"""The lines of scores.jsonl and parity.jsonl: a record, the id of its run, and a digest of both."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from moextend.bench.score.records import Cell, Parity
from moextend.errors import SpecError
from moextend.util.files import digest

DIGEST = "digest"
"""Key of the digest of all other keys of a line."""
Key = tuple[int, str]
"""A cell: (stage, task)."""
C = TypeVar("C", bound=Cell)


def line_of(cell: Cell, run: str) -> dict[str, Any]:
    """The cell as a line of scores.jsonl, with a digest of the line."""
    # Lines of cells without them stay as they were before these keys existed.
    unset = {name for name in ("batch_size", "backend", "parity") if getattr(cell, name) is None}
    return signed({**cell.model_dump(exclude=unset), "run": run})


def parity_line(parity: Parity, run: str) -> dict[str, Any]:
    """The check as a line of parity.jsonl, with a digest of the line, by which cells name it."""
    return signed({**parity.model_dump(), "run": run})


def parse_parity(line: bytes, run: str) -> tuple[str, Parity] | None:
    """Digest and check of a line; None for another line, or one that is damaged, was changed or is of another run."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("run") != run or record.get(DIGEST) != _digest(record):
        return None
    values = {key: value for key, value in record.items() if key not in ("run", DIGEST)}
    try:
        return str(record[DIGEST]), Parity.parse(values, where="parity.jsonl")
    except SpecError:
        return None


def signed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a digest of all its other keys."""
    return {**record, DIGEST: _digest(record)}


def _digest(record: dict[str, Any]) -> str:
    return digest({key: value for key, value in record.items() if key != DIGEST})


def parse_cell(record: Any, where: str, run: str, kind: type[C]) -> C:
    """Cell of a kind from a line; SpecError if it is not one, was changed, or belongs to another run."""
    hint = "Remove the line, or run the same command again (moextend bench run), which scores the cell again."
    if not isinstance(record, dict):
        raise SpecError("not a scored cell.", where=where, hint=hint)
    if record.get("run", run) != run:
        raise SpecError("is a cell of another run.", where=where, hint=hint)
    if record.get(DIGEST, "") not in ("", _digest(record)):
        raise SpecError("was changed after it was scored.", where=where, hint=hint)
    values = {key: value for key, value in record.items() if key not in ("run", DIGEST)}
    try:
        cell = kind.parse(values, where=where)
    except SpecError as error:
        raise SpecError(f"not a scored cell: {error.what}", where=where, hint=hint) from error
    if not record.get(DIGEST):
        raise SpecError("has no digest, so nothing shows that it was scored.", where=where, hint=hint)
    return cell
