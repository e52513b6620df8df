"""Removes from the store of a workspace what no run needs (`moextend bench gc`)."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.bench.store import CARD, KINDS, Node, Store
from moextend.errors import MoextendError, counted
from moextend.util import files, lease

DAY = 86_400.0
FEATURES = ("features.bin", "names.txt", CARD)
"""Files of a folder of features, which are written under a lease of their own."""


@dataclass(frozen=True)
class Entry:
    """A node in the list of `gc`."""

    kind: str
    key: str
    about: str
    """What it is, in words."""
    bytes: int
    """Size of its files on disk, without those that a run has under another name: what removing it frees."""
    used: float
    """Time of the last use, in seconds since 1970."""
    kept: str | None
    """Why it is kept. None: it is removed."""

    @property
    def place(self) -> str:
        """What one line of the list is about; answers are many and small, and have one line."""
        return self.kind if self.kind == "predictions" else f"{self.kind}/{self.key}"


def collect(
    store: Store,
    runs: Path,
    *,
    dry_run: bool = False,
    older_than: float | None = None,
) -> list[Entry]:
    """Removes the nodes that no run needs, and returns all nodes, the longest unused first.

    A projector is needed by every run that was made with it, anything else by unfinished runs. A node whose lease is
    held is in use. Nothing outside the store is touched.

    Args:
        runs: a folder of runs, besides those that the store knows.
        dry_run: remove nothing.
        older_than: keep what was used in the last so many days.

    Raises:
        LaterVersion: the store is of a later release.
    """
    known = dict.fromkeys([runs.resolve(), *store.runs()])
    found = [run for folder in known for run in find_runs(folder)]
    unfinished = sum(read_status(run.folder).state != "done" for run in found)
    ids = set[str]()
    for run in found:
        with suppress(MoextendError):
            ids.add(run.id)
    nodes = [node for kind in KINDS for node in store.nodes(kind)]
    entries = [(node, entry) for node in nodes if (entry := _entry(node)) is not None]
    entries.sort(key=lambda pair: pair[1].used)
    listed = []
    for node, entry in entries:
        why = _needed(node, unfinished, ids)
        if why is None and older_than is not None and time.time() - entry.used <= older_than * DAY:
            why = f"used in the last {older_than:g} days"
        if why is None and not _removed(node, dry_run):
            why = "in use"
        listed.append(replace(entry, kept=why))
    return listed


def lines(entries: Sequence[Entry], *, dry_run: bool) -> Iterator[str]:
    """The list in words."""
    rows: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        fate = f"kept: {entry.kept}" if entry.kept else "removable" if dry_run else "removed"
        rows.setdefault((entry.place, fate), []).append(entry)
    for (place, fate), own in rows.items():
        used = time.strftime("%Y-%m-%d", time.localtime(max(entry.used for entry in own)))
        about = f"answers in {counted(len(own), 'file')}" if place == "predictions" else own[0].about
        yield f"{place}  {size(sum(entry.bytes for entry in own))}, used {used}, {about}  ({fate})"


def summary(entries: Sequence[Entry], *, dry_run: bool) -> str:
    """What was removed and kept, in one line."""
    gone = [entry for entry in entries if entry.kept is None]
    kept = [entry for entry in entries if entry.kept is not None]
    verb = "would be removed" if dry_run else "removed"
    return (
        f"{counted(len(gone), 'result')} {verb}, {size(sum(e.bytes for e in gone))}; "
        f"{len(kept)} kept, {size(sum(e.bytes for e in kept))}."
    )


def size(count: int) -> str:
    """Bytes in words: 1.2 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def _entry(node: Node) -> Entry | None:
    """A node as an entry; None without files."""
    states: dict[Path, os.stat_result] = {}
    for path in node.folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                states[path] = path.lstat()
    if not states:
        return None
    card = None
    with suppress(MoextendError):  # damaged, or of a later release
        card = node.read_card()
    used = max(state.st_mtime for state in states.values())
    if (
        card is not None and node.kind != "features"
    ):  # whose other files may be those of a run, with their times
        used = states[node.folder / CARD].st_mtime if node.folder / CARD in states else 0.0
    return Entry(
        kind=node.kind, key=node.key, about=card.about if card else "not complete",
        bytes=sum(state.st_size for state in states.values() if state.st_nlink == 1),
        used=used, kept=None,
    )  # fmt: skip


def _needed(node: Node, unfinished: int, ids: Collection[str]) -> str | None:
    """Why runs need a node; None if none does. `ids`: of all runs that are known, which stay if a folder is moved."""
    if node.kind != "aligned":
        return f"{counted(unfinished, 'unfinished run')} may need it" if unfinished else None
    users = node.users()
    if ids and not users:
        return "runs may have been made with it"
    existing = [user for user in users if user.id in ids or _exists(RunDir(Path(user.run)), user.id)]
    return f"{counted(len(existing), 'run')} made with it" if existing else None


def _exists(run: RunDir, id: str) -> bool:
    try:
        return run.config_path.is_file() and run.id == id
    except MoextendError:
        return True  # damaged, and not gone


def _removed(node: Node, dry_run: bool) -> bool:
    """Removes a node, unless its lease is held; returns whether it is free."""
    with ExitStack() as leases:
        try:
            leases.enter_context(node.lease(wait=False))
            if node.kind == "features":
                leases.enter_context(lease.first(node.folder / FEATURES[0], patient=False))
        except lease.Held:
            return False
        if not dry_run:
            with files.disk_errors(node.folder):
                if node.kind != "features":
                    node.remove()
                for name in FEATURES if node.kind == "features" else ():
                    (node.folder / name).unlink(missing_ok=True)
    return True
