"""The store of a workspace and its nodes; see the package."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field

from moextend.errors import InputError, MoextendError, SpecError
from moextend.util import files, lease
from moextend.util.spec import LaterVersion, Record

log = logging.getLogger(__name__)

Kind = Literal["aligned", "predictions", "stages"]
CARD = "card.json"
OFF = "MOEXTEND_SHARING"
"""Environment variable: "off" makes every run train its stages and answer their rows itself."""


class Damaged(Exception):
    """A file of a node is not the one that its card names."""


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
    """`.cache/<kind>/<key>/card.json`: one result that runs share."""

    kind: str
    """aligned, predictions or stages."""
    key: str
    """Digest of everything that the result depends on; the name of the folder."""
    about: str
    """What it is, in words."""
    files: dict[str, KeptFile] = Field(default_factory=dict)
    """Name of a file in the folder -> size and digest."""
    made_by: str = ""
    """Folder of the run that computed it; "" if none did."""


@dataclass(frozen=True)
class Store:
    """The store below `folder`, the `.cache` of a workspace."""

    folder: Path
    run: str = ""
    """Folder of the run that uses it."""
    run_id: str = ""

    @property
    def shares_stages(self) -> bool:
        """Whether runs share trained stages and their answers; see `OFF`."""
        value = os.environ.get(OFF) or "on"
        if value not in ("on", "off"):
            raise InputError(
                f"'{value}' is neither on nor off.", where=OFF, hint="Use on or off, or unset it (on)."
            )
        return value == "on"

    def node(self, kind: Kind, key: str) -> Node:
        """The node of a key; it may not exist."""
        return Node(self, kind, key)


@dataclass(frozen=True)
class Node:
    """A result that runs share."""

    store: Store
    kind: Kind
    key: str

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.store.folder / self.kind / self.key

    @contextmanager
    def lease(self, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Context in which no other process makes the node; others wait.

        If the lease is lost, another process may compute the same meanwhile. That costs time, and nothing else: content
        is addressed by its inputs, and a reader compares every file with its card.

        Args:
            on_wait: called several times a second while another process has it.
        """
        with lease.first(self.folder, on_wait=on_wait):
            yield

    def card(self) -> NodeCard | None:
        """The card; None for a node that is not complete. A damaged one is removed, with a warning: needs the lease."""
        path = self.folder / CARD
        try:
            found = NodeCard.read(path)
            if found is not None and (found.kind, found.key) != (self.kind, self.key):
                raise SpecError("its card is of another node.", where=str(path))
        except LaterVersion:
            raise
        except MoextendError as error:
            self.discard(error.what)
            return None
        return found

    def put(self, sources: Mapping[str, Path], *, about: str) -> None:
        """Keeps files (name -> path) for other runs, linked if possible; needs the lease.

        A full disk is no error: the run has its own files.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / CARD).unlink(missing_ok=True)
            for name, path in sources.items():
                if path != self.folder / name:
                    _link(path, self.folder / name)
            kept = {name: KeptFile.of(self.folder / name) for name in sources}
            card = NodeCard(kind=self.kind, key=self.key, about=about, files=kept, made_by=self.store.run)
            # Not synced: a card that a power failure damages costs the node, which is made again.
            files.write_text(self.folder / CARD, f"{card.model_dump_json(indent=2)}\n", synced=False)
        except (OSError, MoextendError) as error:
            log.warning("%s: not kept for other runs (%s).", self.folder, error)

    def copy(self, name: str, target: Path) -> None:
        """Copies a file of the node to `target`, atomically.

        Raises:
            Damaged: it is not the file that was kept; the node is removed.
        """
        card = self.card()
        known = card.files.get(name) if card else None
        try:
            with files.atomic(target) as temporary:
                if known is None:
                    raise Damaged("no complete node")
                shutil.copyfile(self.folder / name, temporary)
                if KeptFile.of(temporary) != known:
                    raise Damaged(f"{name} is damaged")
        except (OSError, Damaged) as error:
            if isinstance(error, OSError) and (self.folder / name).is_file():
                raise  # the target's disk
            self.discard(str(error))
            raise Damaged(str(error)) from error

    def problem(self) -> str | None:
        """What is wrong with the files of a complete node; None: nothing."""
        card = self.card()
        if card is None:
            return "it is not complete"
        for name, known in card.files.items():
            try:
                if KeptFile.of(self.folder / name) != known:
                    return f"{name} is damaged"
            except OSError as error:
                return f"{name}: {error.strerror}"
        return None

    def discard(self, why: str) -> None:
        """Removes a damaged node, with a warning: it is made again."""
        log.warning("%s: cannot be used (%s); it is made again.", self.folder, why.rstrip("."))
        shutil.rmtree(self.folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """A second name of a file, or a copy where the file system has none: a kept result takes no room twice."""
    with files.atomic(target, synced=False) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)
