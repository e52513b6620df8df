"""Typed, frozen records for the files of a run; writers and readers use the same classes.

Every record has a `schema_version`. A file of a later version is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from moextend.errors import InputError, SpecError, type_name
from moextend.util import bounded_yaml, files

VERSION = 1
"""Version of the files of a run."""
AGAIN = "Run the command again: it creates the file again."


class LaterVersion(InputError):
    """A file of a later release, which this release cannot read."""


class Record(BaseModel):
    """Base of all records: frozen, with strict types and finite numbers; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    schema_version: int = VERSION
    """Version of the file's format: 1."""

    @classmethod
    def parse(cls, values: Any, *, where: str, hint: str = AGAIN) -> Self:
        """Record from a JSON value; SpecError if it is invalid, LaterVersion for a later version."""
        if not isinstance(values, dict):
            raise SpecError(f"holds {type_name(values)}, not a mapping of keys.", where=where, hint=hint)
        version = values.get("schema_version")
        if isinstance(version, int) and version > VERSION:
            raise LaterVersion(
                f"has schema_version {version}; this release reads versions up to {VERSION}.",
                where=where,
                hint="Update moextend.",
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SpecError(f"{problem_of(error)}.", where=where, hint=hint) from error

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Record from a JSON file; None without a file. Raises the errors of `parse`."""
        try:
            values = files.read_json(path)
        except FileNotFoundError:
            return None
        except SpecError as error:
            raise SpecError(error.what, where=error.where, hint=AGAIN) from error
        return cls.parse(values, where=str(path))

    def write(self, path: Path) -> None:
        """Writes the record as indented JSON, atomically."""
        files.write_json(path, self.model_dump())


def problem_of(error: ValidationError) -> str:
    """First problem: its place in the record, and the value there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"'{place}': {first['msg']} (found {bounded_yaml.shown(first['input'])})"
