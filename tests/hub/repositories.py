"""Repositories of the hub in tests: folders as commits, with branches, and who may read them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["models", "datasets"]
LARGE = (".safetensors", ".parquet")
"""Files in LFS, which the hub serves from a storage of its own; all others are in git."""


@dataclass(frozen=True)
class File:
    """One file of a commit."""

    path: Path
    name: str

    @cached_property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @property
    def large(self) -> bool:
        return self.name.endswith(LARGE)

    @cached_property
    def etag(self) -> str:
        """SHA-256 of a large file, git's SHA-1 of another one."""
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return self.blob

    @cached_property
    def blob(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def lfs(self, key: str) -> dict[str, Any]:
        """The facts of a large file as the hub's API has them; `key` names the hash."""
        if not self.large:
            return {}
        return {"lfs": {key: self.etag, "size": len(self.content), "pointerSize": 134}}


@dataclass
class Repository:
    """A model or data set: its commits, oldest first, and where its branches and tags point to."""

    kind: Kind
    name: str
    gated: bool = False
    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def push(self, folder: Path, branch: str = "main") -> str:
        """Adds the files of a folder as a commit, to which the branch moves; returns its id."""
        names = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        files = {name: File(path, name) for name, path in names.items()}
        commit = hashlib.sha1(f"{self.kind}/{self.name} {len(self.commits)}".encode()).hexdigest()
        self.commits[commit] = files
        self.refs[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """Commit of a branch, tag or commit."""
        found = self.refs.get(revision.removeprefix("refs/heads/"), revision)
        return found if found in self.commits else None

    def info(self, commit: str, *, sizes: bool) -> dict[str, Any]:
        """What `/api/models/NAME/revision/...` says; `sizes`: with `?blobs=true`."""
        siblings = [
            {
                "rfilename": name,
                **({"size": len(file.content), "blobId": file.blob, **file.lfs("sha256")} if sizes else {}),
            }
            for name, file in self.commits[commit].items()
        ]
        return {
            "_id": commit[:24], "id": self.name, "author": self.name.partition("/")[0], "sha": commit,
            "lastModified": "2025-01-01T00:00:00.000Z", "createdAt": "2025-01-01T00:00:00.000Z",
            "private": self.private, "gated": "manual" if self.gated else False, "disabled": False,
            "downloads": 0, "likes": 0, "tags": [], "siblings": siblings, "cardData": self.card(commit),
            **({"modelId": self.name} if self.kind == "models" else {}),
        }  # fmt: skip

    def card(self, commit: str) -> dict[str, Any]:
        """The front matter of README.md."""
        found = self.commits[commit].get("README.md")
        return yaml.safe_load(found.content.decode().split("---")[1]) if found else {}

    def tree(self, commit: str, below: str, *, recursive: bool) -> list[dict[str, Any]] | None:
        """Files and folders below a folder; None if there is no such folder."""
        prefix = f"{below}/" if below else ""
        found: dict[str, dict[str, Any]] = {}
        for name, file in self.commits[commit].items():
            if not name.startswith(prefix):
                continue
            parts = name.removeprefix(prefix).split("/")
            folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
            for folder in folders if recursive else folders[:1]:
                path = prefix + folder
                oid = hashlib.sha1(path.encode()).hexdigest()
                found[path] = {"type": "directory", "oid": oid, "size": 0, "path": path}
            if recursive or not folders:
                found[name] = entry(file)
        return list(found.values()) if found or not below else None

    def paths(self, commit: str, names: list[str]) -> list[dict[str, Any]]:
        """The files and folders with these names that exist, as `paths-info` answers."""
        entries = {each["path"]: each for each in self.tree(commit, "", recursive=True) or []}
        return [entries[name.strip("/")] for name in names if name.strip("/") in entries]


def entry(file: File) -> dict[str, Any]:
    """A file in a listing."""
    return {
        "type": "file",
        "oid": file.blob,
        "size": len(file.content),
        "path": file.name,
        **file.lfs("oid"),
    }
