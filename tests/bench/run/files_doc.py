"""Makes the page of the site on the files of a run from its records: ``python -m tests.bench.run.files_doc``."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moextend.bench.executors.executor import Job
from moextend.bench.run.config import ConfigFile, Identity
from moextend.bench.run.items import PackedItems
from moextend.bench.run.records import RoutingReport, RunFacts, StageCost, Status
from moextend.bench.run.variants import VariantCell
from moextend.bench.score.lines import PredictionLine
from moextend.bench.score.records import Cell, Parity
from moextend.bench.store import NodeCard

FILES: dict[str, type[Any]] = {
    "config.json": ConfigFile,
    "scores.jsonl": Cell,
    "variants.jsonl": VariantCell,
    "predictions/<digest of weights>/<task>-<key>.jsonl": PredictionLine,
    "items.json": PackedItems,
    "parity.jsonl": Parity,
    "facts.json": RunFacts,
    "status.json": Status,
    "stages/<t>-<task>/cost.json": StageCost,
    "stages/<t>-<task>/routing.json": RoutingReport,
    ".cache/<kind>/<key>/card.json": NodeCard,
    "job.json": Job,
}
HEAD = """# Files of a run

A run is a folder `runs/<sequence>/<method>-s<seed>[-<order>][-<mode>]/`. All its records are JSON, or one JSON object a
line. Each has `schema_version`; files of a later version are refused. Files are written whole or not at all, and lines
are synced: an interruption loses at most what was being computed.

| file | holds |
| :-- | :-- |
| `config.json` | what the run is, where its files lie, what it was made with |
| `scores.jsonl` | one line per cell of the matrix; the last line of a cell counts |
| `variants.jsonl` | scores of the last model with its [update scaled](../method.md#scaling-the-update) |
| `parity.jsonl` | one line a parity check of a [server](../serving.md#scoring-backends) that scored cells |
| `facts.json` | what became known while running |
| `status.json` | how far the run is |
| `stages/<t>-<task>/` | what stage t learned: `extension.safetensors`, its card `extension.json`, files of the method |
| `stages/<t>-<task>/cost.json` | what the stage took |
| `stages/<t>-<task>/lineage.json` | what its training started from: weights of earlier stages, data, code |
| `stages/<t>-<task>/routing.json` | which experts the learned tasks reach after it |
| `predictions/<digest of weights>/` | answers, one line per item, and what a scorer makes of each (`*.scores3.jsonl`) |
| `items.json` | in a run from a pack without predictions: the score of each item |
| `.lease` | the process that works on it, see [reliability](../reliability.md#several-hosts) |
| `job.json`, `cancel.json` | the job that executes the run, and a request to stop it (time and host) |
| `worker.log` | what the process did, with the time, and what it wrote to its standard error |
| `server.log` | what the servers that it started wrote |

Runs of a workspace share results below its `.cache`, see [reliability](../reliability.md#shared-results). Each is a
folder `.cache/<kind>/<key>/` with a `card.json`.

Text in JSON is UTF-8. Keys that are not known are left out when a record is read; in `scores.jsonl` they are an error.

This page is made of the classes that write and read the files.
"""
WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any"}


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for name, record in FILES.items():
        parts.append(f"## `{name}`\n\n{_section(record)}")
        parts += [f"### {part.__name__}\n\n{_section(part)}" for part in _held(record)]
        if record is ConfigFile:
            parts.append(f"### Identity\n\n{_section(Identity)}")
    return "\n".join(parts)


def _held(model: type[Any]) -> Iterator[type[BaseModel]]:
    """The models in the fields of a model, and in theirs."""
    for field in fields_of(model).values():
        for part in _models(field.annotation):
            yield part
            yield from _held(part)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _section(model: type[Any]) -> str:
    output = docstrings(model)
    rows = [
        f"| `{name}` | {kind(field.annotation)} | {_default(field)} | {output.get(name, '')} |"
        for name, field in fields_of(model).items()
        if not field.exclude
    ]
    about = inspect.getdoc(model) or ""
    return "\n".join(
        [about, "", "| key | value | default | meaning |", "| :-- | :-- | :-- | :-- |", *rows, ""]
    )


def fields_of(model: type[Any]) -> dict[str, FieldInfo]:
    """The fields of a pydantic model or dataclass."""
    fields: dict[str, FieldInfo] = model.__pydantic_fields__
    return fields


def docstrings(model: type[Any]) -> dict[str, str]:
    """Field -> the docstring below it, on one line."""
    found = {}
    for owner in model.__mro__[::-1]:
        if owner in (object, BaseModel):
            continue
        (body,) = ast.parse(inspect.getsource(owner)).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[field.target.id] = " ".join(text.split())
    return found


def kind(annotation: Any) -> str:
    """A type in the words of JSON."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join("null" if part is NoneType else kind(part) for part in arguments)
    if origin in (list, tuple):
        return f"list of {kind(arguments[0])}"
    if origin is dict:
        held = kind(arguments[1])
        return "mapping" if held == "any" else f"mapping to {f'({held})' if ' or ' in held else held}"
    if annotation in WORDS:
        return WORDS[annotation]
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return f"`{json.dumps(field.get_default(call_default_factory=True))}`"


if __name__ == "__main__":
    print(page())
