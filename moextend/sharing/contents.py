"""Files of a folder that are pushed: those of the extension or of the exported model, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moextend.errors import InputError, SpecError
from moextend.extension.folder import contents, is_about, is_own, is_pickle
from moextend.util import files

Kind = Literal["extension", "moextend", "stock", "peft"]
_PART = r"(?:[A-Za-z0-9][\w-]*/){0,3}"
_EXPORTED = re.compile(
    _PART
    + r"(?:[\w.-]+\.safetensors(?:\.index\.json)?|(?:config|generation_config|tokenizer|tokenizer_config|vocab|"
    r"special_tokens_map|added_tokens|adapter_config|moextend_export|extension|projector|preprocessor_config|"
    r"chat_template|modality-[a-z][a-z0-9]*)\.json|merges\.txt|vocab\.txt|tokenizer\.model|[\w-]+\.jinja|log\.jsonl|"
    r"moextend_code\.py)"
)
"""Files that `moextend export` writes."""
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{20,}")
_TEXTS = (".json", ".jsonl", ".md", ".txt", ".jinja", ".py")
_MOST_TEXT = 50 << 20
"""Largest text file in bytes that is searched for tokens; a larger one is refused."""
_HINT = "Name a folder of 'moextend extend' or 'moextend export', or a stage of a run."


@dataclass(frozen=True)
class Pushed:
    """A folder to push."""

    folder: Path
    kind: Kind
    """extension: of `extend`. Others: the form of an export."""
    names: tuple[str, ...]
    """Files that are pushed, relative to the folder; without the model card."""
    left_out: tuple[str, ...]
    """Files that are not."""

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum((self.folder / name).stat().st_size for name in self.names)


def pushed(folder: Path) -> Pushed:
    """What of a folder is pushed.

    Raises:
        InputError: it holds no extension and no exported model; a file may hold code, such as a pickle; or a file
            holds an access token.
    """
    kind = kind_of(folder)
    if kind == "extension":
        found = contents(folder)
        pickles, others = found.pickles, found.others
        names = (*found.own, *(name for name in found.about if name != "README.md"))
    else:
        names, pickles, others = _exported(folder)
    if pickles:
        raise InputError(
            f"{pickles[0]} may hold code, and is not shared.", where=str(folder),
            hint="Weights are shared as safetensors. Remove the file, or move it elsewhere.",
        )  # fmt: skip
    for name in names:
        _refuse_token(folder / name)
    return Pushed(folder, kind, names, others)


def kind_of(folder: Path) -> Kind:
    """What a folder holds; InputError if it is nothing to push."""
    if not folder.is_dir():
        raise InputError(f"no folder '{folder}'.", where="SOURCE", hint=_HINT)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    found = kind_of_names(names, _model_type(folder))
    if found is None:
        raise InputError("holds no extension and no exported model.", where=str(folder), hint=_HINT)
    return found


def kind_of_names(names: set[str], model_type: str = "") -> Kind | None:
    """Kind of a folder by the names of its files and the model type in its config; None: nothing of this package."""
    if {"extension.json", "extension.safetensors"} <= names:
        return "extension"
    if "adapter_config.json" in names:
        return "peft"
    if "moextend_export.json" in names:
        return "stock"
    return "moextend" if model_type == "moextend" or "moextend_code.py" in names else None


def is_shared(name: str, kind: Kind) -> bool:
    """Whether a file of a repository belongs to what was pushed."""
    if is_about(name):
        return True
    return is_own(name) if kind == "extension" else _EXPORTED.fullmatch(name) is not None


def _exported(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of the files of an exported folder: pushed, pickles, others."""
    names, pickles, others = list[str](), list[str](), list[str]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if is_pickle(path):
            pickles.append(name)
        elif (
            path.is_file()
            and not path.is_symlink()
            and (_EXPORTED.fullmatch(name) or (is_about(name) and name != "README.md"))
        ):
            names.append(name)
        elif name != "README.md":
            others.append(name)
    return tuple(names), tuple(pickles), tuple(others)


def _model_type(folder: Path) -> str:
    try:
        config = files.read_json(folder / "config.json")
    except (FileNotFoundError, SpecError):
        return ""
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


def _refuse_token(path: Path) -> None:
    """Raises InputError if a text file holds an access token of the hub."""
    if path.suffix not in _TEXTS:
        return
    if path.stat().st_size > _MOST_TEXT:
        raise InputError("is too large for a text.", where=str(path), hint="Check the file, or remove it.")
    if _TOKEN.search(path.read_bytes()):
        raise InputError(
            "holds an access token of the hub, and is not shared.", where=str(path),
            hint="Remove the token from the file.",
        )  # fmt: skip


def local_paths(folder: Path, kind: Kind) -> list[str]:
    """Absolute paths of this machine that the cards name, which others would see and cannot use."""
    keys = {
        "extension": ("extension.json", "made", ("base", "data")),
        "moextend": ("config.json", "", ("base",)),
    }
    if kind not in keys:
        return []
    name, inner, wanted = keys[kind]
    values = json.loads((folder / name).read_bytes())
    values = values.get(inner) or {} if inner else values
    if kind == "moextend" and values.get("base_copied"):
        return []
    named = [str(values.get(key, "")) for key in wanted]
    named += [value for each in (values.get("options") or {}).values() for value in each]
    return [f"{name} names {value}" for value in named if value.startswith(("/", "~"))]
