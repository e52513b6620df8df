"""The folder of an extension: a local one or one of the Hugging Face Hub, and which of its files are what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moextend.errors import InputError
from moextend.util import files, hub_errors
from moextend.util.quiet import quiet_loggers

MEMORY = "memory.safetensors"
LATENTS = "latents.safetensors"
STATISTICS = "task_statistics.safetensors"
INPUTS = (MEMORY, LATENTS)
"""Files of `extend` that are made of inputs of the training data."""
SINGLE = (STATISTICS, *INPUTS)
"""Files of tensors that state their identity (tensor_files.write_tensors)."""
NEEDED = ("extension.json", "extension.safetensors", "modality-*.json", "modality-*.safetensors", *SINGLE)
"""Files that loading an extension needs."""
_OWN = re.compile(r"extension\.(json|safetensors)|log\.jsonl|modality-[a-z][a-z0-9]*\.(json|safetensors)")
_ABOUT = re.compile(r"README\.md|certificate-[a-z]+\.(json|md)")
_TEXTS = (".json", ".jsonl", ".txt", ".md", "LICENSE", ".gitattributes")
"""Ends of the names of other files that are text, such as the costs and the routing in the folder of a stage."""
_REVISION = re.compile(r"\w(?!.*\.\.)[\w./-]{0,200}")
MODEL_TYPE = "moextend"


@dataclass(frozen=True)
class Contents:
    """Files of a folder by kind, relative to it, in order."""

    own: tuple[str, ...]
    """Files of the extension."""
    others: tuple[str, ...]
    """All others, and links: they are never loaded, and never shared."""
    code: tuple[str, ...]
    """Those of the others that may hold code: all that are not text by their names."""


def contents(folder: Path) -> Contents:
    """What is in the folder of an extension, with all its folders."""
    paths = dict(files_in(folder))
    own = [name for name, path in paths.items() if is_own(name) and is_plain(path)]
    about = [name for name, path in paths.items() if is_about(name) and is_plain(path)]
    others = [name for name in paths if name not in (*own, *about)]
    code = [name for name in others if not (name.endswith(_TEXTS) and is_plain(paths[name]))]
    return Contents(tuple(own), tuple(others), tuple(code))


def files_in(folder: Path) -> list[tuple[str, Path]]:
    """Name relative to the folder, and path, of all files and links in it and in its folders, in order."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return [(path.relative_to(folder).as_posix(), path) for path in paths]


def is_own(name: str) -> bool:
    """Whether a file of this name in the folder of an extension is the extension's."""
    return name in SINGLE or _OWN.fullmatch(name) is not None


def is_about(name: str) -> bool:
    """Whether a file of this name is the model card or a certificate of an extension."""
    return _ABOUT.fullmatch(name) is not None


def is_plain(path: Path) -> bool:
    """Whether it is a file; a link counts only in a cache of the hub, whose files are links to its blobs."""
    return path.is_file() and (not path.is_symlink() or path.resolve().parent.name == "blobs")


def is_extended(folder: str | Path) -> bool:
    """Whether `moextend export --as moextend` or `save_model` wrote a local folder."""
    return config_of(Path(folder)).get("model_type") == MODEL_TYPE


def config_of(folder: Path) -> dict[str, Any]:
    """Content of config.json in a folder; empty without one that can be read."""
    try:
        found = files.read_json(folder / "config.json")
    except (OSError, ValueError, InputError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class HubId:
    """A repository on the hub, and a branch, tag or commit of it."""

    name: str
    revision: str | None = None
    """None: the default branch."""

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def parse(text: str, *, where: str | None = None) -> HubId:
    """Hub id from OWNER/NAME or OWNER/NAME@REVISION; InputError for another text."""
    found = hub_id(text)
    if found is None:
        raise InputError(
            f"'{text}' is not the name of a repository.", where=where, hint="Write OWNER/NAME or OWNER/NAME@REVISION."
        )  # fmt: skip
    return found


def hub_id(text: str) -> HubId | None:
    """Hub id in a text; None if it is none."""
    name, marked, revision = text.partition("@")
    if "/" not in name or not hub_errors.is_name(name) or (marked and not _REVISION.fullmatch(revision)):
        return None
    return HubId(name, revision or None)


def local_folder(source: str | Path, *, where: str | None = None) -> Path:
    """Folder of an extension: a local one, or that of a hub id in the user's cache, downloaded if it is not there.

    A local folder goes first; a text that can be neither is returned as a path.

    Raises:
        InputError: the hub has no such repository or revision, not for this user, or it holds no extension; or
            offline, the cache has it not.
        RunFailed: the hub cannot be reached or fails, or what was downloaded is damaged.
    """
    named = None if files.exists(source) or Path(source).is_absolute() else hub_id(str(source))
    if named is None:
        return Path(source)
    folder = download(named, NEEDED, where=where)
    if not (folder / "extension.json").is_file():
        raise InputError(
            f"the model '{named}' on the hub holds no extension.",
            where=where or f"extension '{source}'",
            hint="Folders of extended models load with moextend.load_model.",
        )
    return folder


def download(named: HubId, patterns: Sequence[str], *, where: str | None = None) -> Path:
    """Folder of a commit in the user's cache with the files that match; raises the errors of `local_folder`."""
    from huggingface_hub import snapshot_download

    try:
        with quiet_loggers("huggingface_hub"):
            return Path(snapshot_download(named.name, revision=named.revision, allow_patterns=list(patterns)))
    except Exception as error:
        found = hub_errors.of_hub(error, named.name, revision=named.revision, where=where)
        if found is None:
            raise
        raise found from error
