"""The records of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field

from moextend.util import files
from moextend.util.spec import Record


class KeptFile(BaseModel):
    """Size and digest of a file."""

    model_config = Record.model_config

    bytes: int
    """Size in bytes."""
    sha256: str
    """SHA-256 of the content, 64 hex digits."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Size and digest of the file as it is."""
        return cls(bytes=path.stat().st_size, sha256=files.sha256(path))


class NodeCard(Record):
    """`.cache/<kind>/<key>/card.json`: one result that runs share. The file's modification time is the last use."""

    kind: str
    """aligned, predictions, stages or features."""
    key: str
    """Digest of everything that the result depends on; the name of the folder."""
    about: str
    """What it is, in words."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """What the key is a digest of, as far as it helps a reader."""
    files: dict[str, KeptFile] = Field(default_factory=dict)
    """Name of a file in the folder -> size and digest. Empty for features, whose records have their own."""
    created: float
    """Time of the first writing, in seconds since 1970."""
    made_by: str = ""
    """Folder of the run that computed it; "" if none did."""
    seconds: float | None = None
    """Wall-clock time of the computation, in seconds. null: not known."""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files.values())


class User(Record):
    """`.cache/<kind>/<key>/users/*.json`: a run that uses a result each time its base is loaded."""

    run: str
    """Folder of the run."""
    id: str = ""
    """Id of the run."""


class StoreFile(Record):
    """`.cache/store.json`: the version of the store, and where its users are."""

    runs: list[str] = Field(default_factory=list)
    """Folders of runs (`runs/` of workspaces) that use the store."""
