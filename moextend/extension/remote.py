"""Extensions on the Hugging Face Hub: `owner/name` or `owner/name@revision` as the name of a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moextend.errors import InputError
from moextend.extension.folder import INPUTS
from moextend.util import files, hub_errors
from moextend.util.quiet import quiet_loggers

_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w][\w./-]{0,200}))?"
)
NEEDED = (
    "extension.json", "extension.safetensors", "modality-*.json", "modality-*.safetensors",
    "task_statistics.safetensors", *INPUTS,
)  # fmt: skip
"""Files of a repository that loading an extension needs."""


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
