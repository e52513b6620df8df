"""Writes a method or scorer for the workspace: a file that runs without changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moextend.bench import methods, scorers
from moextend.bench.plugins import Plugins
from moextend.errors import InputError, UnknownName
from moextend.util import files

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Kind:
    """Kinds of plug-ins."""

    known: Plugins[Any]
    stand_in: str
    """Name in the template."""
    next: str
    """Command that uses it."""


KINDS = {
    "method": Kind(methods.KNOWN, "new-method", "moextend bench run --method {name}"),
    "scorer": Kind(scorers.KNOWN, "new-scorer", "moextend bench add-task vqa --data FILE --scorer {name}@1"),
}


def write_new(kind: str, name: str, workspace: Path) -> tuple[Path, str]:
    """Writes the file; returns its path and the command that uses it.

    Raises:
        UnknownName: the kind does not exist.
        InputError: the name is invalid or taken.
    """
    if kind not in KINDS:
        raise UnknownName("kind", kind, [*KINDS, "sequence"], where="bench new")
    made, name, where = KINDS[kind], name.replace("_", "-"), f"bench new {kind}"
    if not NAME.fullmatch(name):
        hint = "Use letters, digits and '-', starting with a letter."
        raise InputError(f"'{name}' is not a name.", where=where, hint=hint)
    path = workspace / made.known.folder / f"{name.replace('-', '_')}.py"
    if name in made.known.names(workspace) or name in made.known.reserved or path.exists():
        raise InputError(
            f"'{name}' is taken.", where=where, hint="Choose another name; moextend bench list shows all."
        )
    source = (Path(__file__).parent / "templates" / f"{kind}.py").read_text(encoding="utf-8")
    for old, new in ((made.stand_in, name), (_class(made.stand_in), _class(name))):
        source = source.replace(old, new)
    files.write_text(path, source)
    return path, made.next.format(name=name)


def _class(name: str) -> str:
    """ "lora-l2" -> "LoraL2"."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("-"))
