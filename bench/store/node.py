"""The store of a workspace and its nodes; see the package."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moextend.bench.store.records import KeptFile, NodeCard, StoreFile, User
from moextend.errors import InputError, MoextendError, SpecError
from moextend.util import files, lease
from moextend.util.spec import LaterVersion

log = logging.getLogger(__name__)

Kind = Literal["aligned", "predictions", "stages", "features"]
KINDS: tuple[Kind, ...] = ("aligned", "predictions", "stages", "features")
CARD = "card.json"
STORE = "store.json"
USERS = "users"
OFF = "MOEXTEND_SHARING"
"""Environment variable: "off" makes every run train its stages and answer their rows itself."""


class Damaged(Exception):
    """A file of a node is not the one that its card names."""


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

    def nodes(self, kind: Kind) -> list[Node]:
        """All nodes of a kind, complete or not."""
        place = self.folder / kind
        found = (
            [path for path in place.iterdir() if path.is_dir() and not path.is_symlink()]
            if place.is_dir()
            else []
        )
        return [Node(self, kind, path.name) for path in sorted(found)]

    def runs(self) -> list[Path]:
        """Folders of runs that use the store. Raises LaterVersion for a store of a later release."""
        try:
            known = StoreFile.read(self.folder / STORE)
        except LaterVersion:
            raise
        except MoextendError as error:
            log.warning("%s It is written again.", error)
            known = None
        return [Path(each) for each in known.runs] if known else []

    def register(self) -> None:
        """Notes where the runs of this user are, so that `gc` finds them."""
        place = Path(self.run).parent.parent
        if place not in self.runs():
            with lease.first(self.folder / "store"):
                known = dict.fromkeys([*self.runs(), place])
                _write(self.folder / STORE, StoreFile(runs=[str(each) for each in known]))


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
    def lease(self, on_wait: Callable[[], None] | None = None, *, wait: bool = True) -> Iterator[None]:
        """Context in which no other process makes or removes the node; others wait.

        If the lease is lost, another process may compute the same meanwhile. That costs time, and nothing else: content
        is addressed by its inputs, and a reader compares every file with its card.

        Args:
            on_wait: called several times a second while another process has it.
            wait: False: lease.Held instead.
        """
        with lease.first(self.folder, patient=wait, on_wait=on_wait):
            yield

    def card(self) -> NodeCard | None:
        """The card; None for a node that is not complete. A damaged one is removed, with a warning: needs the lease."""
        try:
            return self.read_card()
        except LaterVersion:
            raise
        except MoextendError as error:
            self.discard(error.what)
            return None

    def read_card(self) -> NodeCard | None:
        """The card; None for a node that is not complete. Raises SpecError if it is damaged, and LaterVersion."""
        path = self.folder / CARD
        found = NodeCard.read(path)
        if found is not None and (found.kind, found.key) != (self.kind, self.key):
            raise SpecError("its card is of another node.", where=str(path), hint="Remove the file.")
        return found

    def put(
        self,
        sources: Mapping[str, Path],
        *,
        about: str,
        inputs: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> None:
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
            _write(self.folder / CARD, self._card(about, inputs, kept, seconds))
        except (OSError, MoextendError) as error:
            log.warning("%s: not kept for other runs (%s).", self.folder, error)

    def mark(self, about: str) -> None:
        """Notes that the run uses a node whose files others write (features); a damaged card does not concern these."""
        with suppress(OSError, MoextendError):
            try:
                known = self.read_card()
            except SpecError:
                known = None
            if known is None:
                _write(self.folder / CARD, self._card(about, None, {}, None))
            self.touch()

    def _card(
        self, about: str, inputs: Mapping[str, Any] | None, kept: dict[str, KeptFile], seconds: float | None
    ) -> NodeCard:
        return NodeCard(
            kind=self.kind, key=self.key, about=about, inputs=dict(inputs or {}), files=kept, created=time.time(),
            made_by=self.store.run, seconds=seconds,
        )  # fmt: skip

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

    def touch(self) -> None:
        """Notes a use."""
        with suppress(OSError):
            os.utime(self.folder / CARD)

    def add_user(self) -> None:
        """Notes that the run needs the node as long as it exists."""
        path = self.folder / USERS / f"{files.digest(self.store.run, self.store.run_id)}.json"
        with suppress(OSError, MoextendError):
            if not path.exists():
                _write(path, User(run=self.store.run, id=self.store.run_id))

    def users(self) -> list[User]:
        """Runs of `add_user`."""
        found = []
        for path in sorted((self.folder / USERS).glob("*.json")):
            with suppress(MoextendError):
                found.append(User.read(path))
        return [user for user in found if user is not None]

    def discard(self, why: str) -> None:
        """Removes a damaged node, with a warning: it is made again."""
        log.warning("%s: cannot be used (%s); it is made again.", self.folder, why.rstrip("."))
        self.remove()

    def remove(self) -> None:
        """Removes the node."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """A second name of a file, or a copy where the file system has none: a kept result takes no room twice."""
    with files.atomic(target, synced=False) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)


def _write(path: Path, record: NodeCard | StoreFile | User) -> None:
    # Not synced: a card that a power failure damages costs the node, which is made again.
    files.write_text(path, f"{record.model_dump_json(indent=2)}\n", synced=False)
