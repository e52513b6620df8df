"""Typed, frozen values of pydantic: specs from users' YAML files, and records of the files of a run.

Errors have file, place and hint. Every record has a `schema_version`; a file of a later version is refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from moextend.errors import InputError, SpecError, type_name
from moextend.util import bounded_yaml, files

S = TypeVar("S", bound="Spec")
PLAIN = dict.fromkeys(["tuple_type", "list_type"], "Input should be a list") | dict.fromkeys(
    ["dict_type", "model_type"], "Input should be a mapping of keys"
)
"""Type of an error of pydantic -> a message in the words of YAML."""
KINDS = {
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "list[str]": "a list of texts",
}
"""Part of a location that names one of several types, each of which a value may have -> words for it."""
VERSION = 1
"""Version of the files of a run."""
AGAIN = "Remove the file, and run the same command again: it is made again."


def unset(default: Any) -> Any:
    """A key that records leave out while it has its default, so that older records and their digests stay the same."""
    return Field(default, exclude_if=lambda value: value == default)


class Spec(BaseModel):
    """Base of all configs of users: frozen, with finite numbers; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        """What a caller makes in Python is refused as what a file holds: SpecError, in one line."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            kind = type(self)
            raise _refused(kind, error, kind.model_config.get("title") or kind.__name__) from error

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # only called from Python: see `parse`

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses booleans for numbers: ``steps: true`` would be one step."""
        if isinstance(value, bool) and _is_number(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("must be a number, not true or false")
        return value


def _is_number(annotation: Any) -> bool:
    """Whether a field only takes a number (or null)."""
    if get_origin(annotation) is Annotated:
        return _is_number(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        return all(map(_is_number, parts))
    return annotation in (int, float)


def read_yaml(path: Path) -> Any:
    """Value of a YAML file; SpecError with line and column if it is not YAML."""
    return bounded_yaml.load(bounded_yaml.read_text(path), where=str(path))


def parse(kind: type[S], value: Any, *, where: str) -> S:
    """`value` as a `kind`; SpecError with the first wrong key, the value there and what is expected."""
    if not isinstance(value, dict):
        raise SpecError(
            f"holds {type_name(value)}, not a mapping of keys.", where=where, hint=f"Keys: {_keys(kind)}."
        )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refused(kind, error, where) from error


def _refused(kind: type[BaseModel], error: ValidationError, where: str) -> SpecError:
    """The first thing that is wrong, with its place and the way out; an unknown key goes before a missing one."""
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    if choices := _choices(errors, first["loc"]):
        first = {**first, "loc": first["loc"][:-1], "type": "choice", "msg": f"Input should be {choices}"}
    place = f"{where}: {_place(first['loc'])}" if first["loc"] else where
    return SpecError(_problem(first), where=place, hint=_hint(kind, first))


def _choices(errors: Sequence[Any], location: tuple[int | str, ...]) -> str:
    """The types that a value may have, none of which it has; "" if it may have one only."""
    if not location or location[-1] not in KINDS:
        return ""
    *place, _ = location
    same = [str(one["loc"][-1]) for one in errors if [*one["loc"][:-1]] == place]
    *others, last = dict.fromkeys(KINDS.get(name, name) for name in same)
    return f"{', '.join(others)}, or {last}" if others else ""


def read(kind: type[S], path: Path) -> S:
    """The YAML file `path` as a `kind`."""
    return parse(kind, read_yaml(path), where=str(path))


def _place(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        if isinstance(part, str) and "[" in part:
            continue  # not a key, but one of several alternative types
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _problem(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "no such key."
    if error["type"] == "missing":
        return "is missing."
    message = PLAIN.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{message} (found {bounded_yaml.shown(error['input'])})." if error["loc"] else f"{message}."


def _hint(kind: type[BaseModel], error: Any) -> str:
    model = _model_at(kind, error["loc"][:-1])
    if error["type"] == "extra_forbidden" and model is not None:
        near = difflib.get_close_matches(str(error["loc"][-1]), model.model_fields, n=1, cutoff=0.5)
        return f"Did you mean '{near[0]}'?" if near else f"Keys: {_keys(model)}."
    if error["type"] == "missing":
        return "Add it."
    if error["type"] == "literal_error":
        words = re.findall("'([^']*)'", error["ctx"]["expected"])
        near = difflib.get_close_matches(str(error["input"]), words, n=1, cutoff=0.5)
        return f"Did you mean '{near[0]}'?" if near else "Correct the value."
    return "Correct the value." if error["loc"] else "Make these settings agree."


def _model_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Model of a location in the YAML, through lists, mappings and optional fields."""
    model: type[BaseModel] | None = kind
    for part in location:
        if isinstance(part, int) or "[" in part:
            continue
        if model and (field := model.model_fields.get(part)):  # else a key of a mapping
            model = _model_in(field.annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found:
            return found
    return None


def _keys(kind: type[BaseModel]) -> str:
    return ", ".join(name for name, field in kind.model_fields.items() if not field.exclude) or "none"


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
            return cls.parse(cls.values_in(path), where=str(path))
        except FileNotFoundError:
            return None

    @staticmethod
    def values_in(path: Path) -> Any:
        """What a JSON file of a record says; FileNotFoundError without a file, SpecError for no JSON."""
        try:
            return files.read_json(path)
        except SpecError as error:
            raise SpecError(error.what, where=error.where, hint=AGAIN) from error

    def write(self, path: Path) -> None:
        """Writes the record as indented JSON, atomically."""
        files.write_json(path, self.model_dump())


def problem_of(error: ValidationError) -> str:
    """First problem: its place in the record, and the value there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"'{place}': {first['msg']} (found {bounded_yaml.shown(first['input'])})"
