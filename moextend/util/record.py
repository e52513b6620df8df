"""A file of a run -> a typed, frozen record; whoever writes one and whoever reads it use the same class.

Every record has a `schema_version`. Files that were made before it existed have none; they are read through `former`.
A file of a later version is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from moextend.errors import InputError, SpecError, type_name
from moextend.util import bounded_yaml, files

VERSION = 1
"""Version of the files of a run."""
AGAIN = "Run again: it is made again."


class LaterVersion(InputError):
    """A file that a later release wrote: not damaged, but not readable here."""


class Record(BaseModel):
    """Base of all records: frozen, of the exact types, numbers are finite, keys that are not known are left out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    schema_version: int = VERSION
    """Version of the file's format: 1. Files of former runs have none."""

    @classmethod
    def former(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values of a file without a version, in today's form."""
        return values

    @classmethod
    def parse(cls, values: Any, *, where: str, hint: str = AGAIN) -> Self:
        """The record in a JSON value; SpecError where it is none, LaterVersion where this release cannot read it."""
        if not isinstance(values, dict):
            raise SpecError(f"holds {type_name(values)}, not a mapping of keys.", where=where, hint=hint)
        version = values.get("schema_version", 0)
        if isinstance(version, int) and version > VERSION:
            raise LaterVersion(
                f"has schema_version {version}; this release reads versions up to {VERSION}.",
                where=where,
                hint="Update moextend.",
            )
        try:
            if version == 0:
                values = cls.former({**values, "schema_version": VERSION})
            return cls.model_validate(values)
        except ValidationError as error:
            raise SpecError(f"{problem_of(error)}.", where=where, hint=hint) from error

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a JSON file; None where there is no file. Raises as `parse` does."""
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
    """The first thing that is wrong: its place in the record, and what was found there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"'{place}': {first['msg']} (found {bounded_yaml.shown(first['input'])})"
