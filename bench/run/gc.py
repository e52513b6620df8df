"""Removes from the store of a workspace what no run needs (`moextend bench gc`)."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.bench.store import CARD, KINDS, Node, NodeCard, Store, User
from moextend.errors import MoextendError, counted
from moextend.util import files, lease

DAY = 86_400.0
IN_USE = "in use"
FEATURES = ("features.bin", "names.txt", CARD)
"""Files of a folder of features."""


@dataclass(frozen=True)
class Entry:
    """A node in the list of `gc`."""

    kind: str
    key: str
    about: str
    """What it is, in words."""
    bytes: int
    """Size of its files on disk, without those that a run has under another name: what removing it frees."""
    created: float | None
    """Time in seconds since 1970. None: not known."""
    used: float
    """Time of the last use."""
    made_by: str
    """Folder of the run that computed it; "": not known."""
    kept: str | None
    """Why it is kept. None: it is removed."""

    def record(self) -> dict[str, Any]:
        """The entry as JSON."""
        return asdict(self)


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
    known = list(dict.fromkeys([runs.resolve(), *store.runs()]))
    found = [run for folder in known for run in find_runs(folder)]
    unfinished = [run for run in found if read_status(run.folder).state != "done"]
    ids = {_id(run) for run in found}
    entries = [(node, _entry(node, paths)) for node, paths in _nodes(store)]
    entries.sort(key=lambda pair: pair[1].used)
    listed = []
    for node, entry in entries:
        why = _needed(node, unfinished, ids) or _recent(entry, older_than)
        if why is None and not _removed(node, dry_run):
            why = IN_USE
        listed.append(replace(entry, kept=why))
    return listed


def lines(entries: Sequence[Entry], *, dry_run: bool) -> Iterator[str]:
    """The list in words: one line per node, and one for all answers with the same fate, which are many and small."""
    answers: dict[str, list[Entry]] = {}
    for entry in entries:
        fate = f"kept: {entry.kept}" if entry.kept else "removable" if dry_run else "removed"
        if entry.kind == "predictions":
            answers.setdefault(fate, []).append(entry)
        else:
            yield f"{entry.kind}/{entry.key}  {size(entry.bytes)}, used {_day(entry.used)}, {entry.about}  ({fate})"
    for fate, own in answers.items():
        total, used = size(sum(entry.bytes for entry in own)), _day(max(entry.used for entry in own))
        yield f"predictions  {total}, used {used}, answers in {counted(len(own), 'file')}  ({fate})"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


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


def _nodes(store: Store) -> Iterator[tuple[Node, list[Path]]]:
    """Nodes that have files, with these."""
    for kind in KINDS:
        for node in store.nodes(kind):
            paths = _files(node.folder)
            if paths:
                yield node, paths


def _entry(node: Node, paths: Sequence[Path]) -> Entry:
    card = _card(node)
    states = {path: state for path in paths if (state := _stat(path)) is not None}
    used = max((state.st_mtime for state in states.values()), default=0.0)
    if card is not None:
        about = card.about
        if node.kind != "features":  # whose other files may be those of a run, with their times
            used = states[node.folder / CARD].st_mtime if node.folder / CARD in states else 0.0
    else:
        about = "not complete"
    return Entry(
        kind=node.kind, key=node.key, about=about, bytes=sum(s.st_size for s in states.values() if s.st_nlink == 1),
        created=card.created if card else None, used=used, made_by=card.made_by if card else "", kept=None,
    )  # fmt: skip


def _card(node: Node) -> NodeCard | None:
    try:
        return node.read_card()
    except MoextendError:  # damaged, or of a later release
        return None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def _id(run: RunDir) -> str:
    """Identity of a run, which stays if its folder is moved; "" if it is damaged."""
    try:
        return run.id
    except MoextendError:
        return ""


def _needed(node: Node, unfinished: Sequence[RunDir], ids: Collection[str]) -> str | None:
    """Why runs need a node; None if none does. `ids`: of all runs that are known."""
    if node.kind == "aligned":
        users = node.users()
        if existing := [user for user in users if user.id in ids or _exists(user)]:
            return f"{counted(len(existing), 'run')} made with it"
        if ids and not users:
            return "runs may have been made with it"
        return None
    return f"{counted(len(unfinished), 'unfinished run')} may need it" if unfinished else None


def _exists(user: User) -> bool:
    run = RunDir(Path(user.run))
    try:
        return run.config_path.is_file() and run.id == user.id
    except MoextendError:
        return True  # damaged, and not gone


def _recent(entry: Entry, days: float | None) -> str | None:
    if days is None or time.time() - entry.used > days * DAY:
        return None
    return f"used in the last {days:g} days"


def _removed(node: Node, dry_run: bool) -> bool:
    """Removes a node, unless its lease is held; returns whether it is free."""
    with ExitStack() as leases:
        try:
            leases.enter_context(node.lease(wait=False))
            if node.kind == "features":  # its files are written under a lease of their own
                leases.enter_context(lease.first(node.folder / FEATURES[0], patient=False))
        except lease.Held:
            return False
        if dry_run:
            return True
        with files.disk_errors(node.folder):
            if node.kind == "features":
                for name in FEATURES:
                    (node.folder / name).unlink(missing_ok=True)
            else:
                node.remove()
    return True
