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
PICKLES = (
    ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5", ".msgpack", ".keras"
)  # fmt: skip
"""Suffixes of weights that may hold code."""
_DATA = (".json", ".jsonl", ".txt", ".md")
_TEXTS = ("LICENSE", ".gitattributes")
"""Suffixes and names of other files that are text, such as the costs and the routing in the folder of a stage."""
_PROGRAMS = (b"#!", b"\x7fELF", b"MZ")
"""First bytes of a script and of programs."""
_HEADS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
"""First bytes of a pickle, and of the archive in which torch saves one."""
_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w][\w./-]{0,200}))?"
)
MODEL_TYPE = "moextend"


@dataclass(frozen=True)
class Contents:
    """Files of a folder by kind, relative to it, in order."""

    own: tuple[str, ...]
    """Files of the extension."""
    about: tuple[str, ...]
    """Model card and certificates."""
    pickles: tuple[str, ...]
    """Files that may hold code: they are never loaded, and never shared."""
    others: tuple[str, ...]
    """All others, and links."""

    def code(self, folder: Path) -> list[str]:
        """Files in `folder` that may hold code: pickles, and others that are not known as text."""
        return [*self.pickles, *(name for name in self.others if not _is_text(folder / name))]


def contents(folder: Path) -> Contents:
    """What is in the folder of an extension, with all its folders."""
    found: dict[str, list[str]] = {"own": [], "about": [], "pickles": [], "others": []}
    for name, path in files_in(folder):
        plain, kind = is_plain(path), "others"
        if is_pickle(path):
            kind = "pickles"
        elif plain and is_own(name):
            kind = "own"
        elif plain and is_about(name):
            kind = "about"
        found[kind].append(name)
    return Contents(**{kind: tuple(names) for kind, names in found.items()})


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


def is_pickle(path: Path) -> bool:
    """Whether a file may hold code that runs when it is loaded, by its name or its first bytes."""
    if (
        path.suffix == ".safetensors"
    ):  # read as such only, and its first bytes are a length, which may be these
        return False
    return path.suffix.lower() in PICKLES or _head(path).startswith(_HEADS)


def is_plain(path: Path) -> bool:
    """Whether it is a file; a link counts only in a cache of the hub, whose files are links to its blobs."""
    return path.is_file() and (not path.is_symlink() or path.resolve().parent.name == "blobs")


def _is_text(path: Path) -> bool:
    """Whether a file is text by its name and its first bytes, and no script; a link is not."""
    named = path.suffix.lower() in _DATA or path.name in _TEXTS
    return named and is_plain(path) and not _head(path).startswith(_PROGRAMS)


def _head(path: Path) -> bytes:
    """The first four bytes; none of a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:
        return b""


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
    found = _ID.fullmatch(text)
    if found is None or ".." in text or found["name"].endswith((".git", ".ipynb")):
        return None
    return HubId(found["name"], found["revision"])


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
