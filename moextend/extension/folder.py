"""Files of the folder of an extension: which are its own, which may hold code, and which are something else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MEMORY = "memory.safetensors"
LATENTS = "latents.safetensors"
INPUTS = (MEMORY, LATENTS)
"""Files of `extend` that are made of inputs of the training data."""
NAMES = (
    "extension.json", "extension.safetensors", "task_statistics.safetensors",
    *INPUTS, "log.jsonl",
)  # fmt: skip
"""Files that `extend` and `save_extension` write."""
_MODALITY = re.compile(r"modality-[a-z][a-z0-9]*\.(json|safetensors)")
"""Files of a modality that an extension brings."""
_ABOUT = re.compile(r"README\.md|certificate-[a-z]+\.(json|md)")
"""Files about an extension: its model card and its certificates."""
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
    own, about, pickles, others = list[str](), list[str](), list[str](), list[str]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if is_pickle(path):
            pickles.append(name)
        elif not _is_plain(path):
            others.append(name)
        elif is_own(name):
            own.append(name)
        else:
            (about if is_about(name) else others).append(name)
    return Contents(tuple(own), tuple(about), tuple(pickles), tuple(others))


def is_own(name: str) -> bool:
    """Whether a file of this name in the folder of an extension is the extension's."""
    return name in NAMES or _MODALITY.fullmatch(name) is not None


def is_about(name: str) -> bool:
    """Whether a file of this name is the model card or a certificate of an extension."""
    return _ABOUT.fullmatch(name) is not None


def is_pickle(path: Path) -> bool:
    """Whether a file may hold code that runs when it is loaded, by its name or its first bytes."""
    if path.suffix.lower() in PICKLES:
        return True
    if (
        path.suffix == ".safetensors"
    ):  # read as such only, and its first bytes are a length, which may be these
        return False
    return _head(path).startswith(_HEADS)


def _is_text(path: Path) -> bool:
    """Whether a file is text by its name and its first bytes, and no script; a link is not."""
    named = path.suffix.lower() in _DATA or path.name in _TEXTS
    return named and _is_plain(path) and not _head(path).startswith(_PROGRAMS)


def _head(path: Path) -> bytes:
    """The first four bytes; none of a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:
        return b""


def _is_plain(path: Path) -> bool:
    """Whether it is a file; a link counts only in a cache of the hub, whose files are links to its blobs."""
    if not path.is_file():
        return False
    return not path.is_symlink() or path.resolve().parent.name == "blobs"
