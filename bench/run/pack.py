"""Runs as one file: packed to be shared, and unpacked elsewhere after every byte was checked."""

from __future__ import annotations

import filecmp
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import get_args

from moextend.bench.run import pack_file as archive
from moextend.bench.run.complete import TENSORS, changed_predictions
from moextend.bench.run.config import ConfigFile
from moextend.bench.run.items import NAME as ITEMS
from moextend.bench.run.items import items_of, read_items
from moextend.bench.run.pack_file import Manifest
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import Kept
from moextend.bench.run.rundir import PREDICTIONS, RunDir, locked, run_name
from moextend.errors import InputError, RunConflict, SpecError, listed
from moextend.util import files
from moextend.util.record import LaterVersion, Record

log = logging.getLogger(__name__)

PARTIAL = ".unpack-"
"""Prefix of the folder of a pack that is being unpacked."""
STALE = 86_400.0
"""Seconds after which such a folder is taken for one of a killed process."""
LEFT_OUT = ("worker.log", "server.log", "job.json", "cancel.json")
"""Files that belong to a process or a machine."""
WITHOUT: dict[Kept, str] = {"predictions": "Add --no-predictions", "weights": "Leave --weights out"}
"""What a pack may leave out -> how to leave it out."""


@dataclass(frozen=True)
class Unpacked:
    """What became of a pack."""

    written: list[Path]
    """Folders of runs that are new here."""
    known: list[Path]
    """Folders of runs that were here before, left as they are."""
    bare: list[Path]
    """Those of `known` that lack weights, predictions or item scores which the pack has."""


def pack(
    runs: Sequence[RunDir],
    out: Path,
    *,
    weights: bool = False,
    predictions: bool = True,
    unfinished: bool = False,
) -> Manifest:
    """Writes the records and predictions of runs into one file, with `weights` also what their stages learned.

    Without predictions, the score of each item is kept instead (items.json): tables and tests stay the same, and only
    checks of the scores need the answers.
    Places of this machine are left out of config.json; the host name and the error out of status.json. Equal runs make
    equal bytes, in whatever order they are named.

    Raises:
        InputError: `out` has another suffix than .tar.zst, .tar.gz or .tar, or exists with other bytes; there is no
            run; a run is not done and `unfinished` is not set; two runs have the same name; a run itself is from a pack
            without what is wanted.
    """
    form = archive.form_of(out, "--out")
    runs = sorted(runs, key=lambda run: run_name(run.folder))
    wanted = {"weights": weights, "predictions": predictions}
    left_out: list[Kept] = [kind for kind in get_args(Kept) if not wanted[kind]]
    _check(runs, left_out, unfinished)
    names = [run_name(run.folder) for run in runs]
    # A run that is done may lie in a read-only folder.
    with locked([run for run in runs if read_status(run.folder).state != "done"]):
        content = {
            f"{name}/{inside}": found
            for name, run in zip(names, runs, strict=True)
            for inside, found in _content(run, left_out)
        }
        manifest = Manifest(
            runs=names,
            weights=weights,
            predictions=predictions,
            files={name: archive.kept_file(found) for name, found in content.items()},
        )
        with files.atomic(out) as temporary:
            archive.write(temporary, form, manifest, content)
            if out.exists() and not filecmp.cmp(out, temporary, shallow=False):
                raise InputError(
                    "already exists with other content.",
                    where=f"--out {out}",
                    hint="Name a new file, or remove this one.",
                )
    return manifest


def unpack(source: Path, runs: Path, workspace: Path) -> Unpacked:
    """Writes the runs of a pack below `runs`, each whole or not at all.

    A run that is here already, with the same records, is left as it is.

    Raises:
        InputError: the file is no pack, is damaged, holds more or other files than its manifest says, or a run
            without a valid config.
        RunConflict: another run has the folder of one of these.
    """
    form = archive.form_of(source, str(source))
    runs.mkdir(parents=True, exist_ok=True)
    _remove_stale(runs)
    with tempfile.TemporaryDirectory(dir=runs, prefix=PARTIAL) as name:
        folder = Path(name)
        manifest = archive.extract(source, form, folder)
        for run in manifest.runs:
            _check_config(folder / run, run, source)
        written, known, bare = [], [], []
        places = [(folder / run, runs / run) for run in manifest.runs]
        for made, place in places:
            if place.exists() and not _same(made, place):
                raise RunConflict(
                    "another run is in this folder.",
                    where=str(place),
                    hint="Unpack into another folder: --out.",
                )
        for made, place in places:
            if place.exists():
                known.append(place)
                bare += [place] if _lacks_some(made, place) else []
                continue
            _settle(made, workspace)
            place.parent.mkdir(parents=True, exist_ok=True)
            made.rename(place)
            written.append(place)
    return Unpacked(written, known, bare)


def _check(runs: Sequence[RunDir], left_out: Sequence[Kept], unfinished: bool) -> None:
    """Raises InputError if these runs cannot be packed with all but `left_out`."""
    if not runs:
        raise InputError("no run to pack.", where="RUN", hint="Run first: moextend bench run.")
    waiting = [run_name(run.folder) for run in runs if read_status(run.folder).state != "done"]
    if waiting and not unfinished:
        raise InputError(
            f"not done: {', '.join(waiting)}.",
            where="RUN",
            hint="Finish or leave them out, or add --unfinished.",
        )
    for run in runs:
        if lacking := [kind for kind in run.left_out if kind not in left_out]:
            raise InputError(
                f"is from a pack without {listed(lacking)}.",
                where=run_name(run.folder),
                hint=f"{'. '.join(WITHOUT[kind] for kind in lacking)}. Or leave the run out.",
            )
        kept = () if "predictions" in run.left_out else run.cells().values()
        changed = changed_predictions(run, kept, every_byte=True)
        if changed:
            raise InputError(
                f"the predictions of {'; '.join(changed)} are not those that were scored.",
                where=run_name(run.folder),
                hint="Restore the files, or run again.",
            )
    if len({run_name(run.folder) for run in runs}) < len(runs):
        raise InputError(
            "two runs have the same name.", where="RUN", hint="Pack the runs of one folder at a time."
        )


def _remove_stale(runs: Path) -> None:
    """Removes what killed processes unpacked in part."""
    for folder in runs.glob(f"{PARTIAL}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE:
                log.warning("%s: left by a killed process; removed.", folder)
                shutil.rmtree(folder)


def _content(run: RunDir, left_out: list[Kept]) -> list[tuple[PurePosixPath, Path | bytes]]:
    """The files of a run that are packed, in order, as they are or as what is written instead."""
    weights, predictions = "weights" not in left_out, "predictions" not in left_out
    found: list[tuple[PurePosixPath, Path | bytes]] = [
        (PurePosixPath(path.relative_to(run.folder)), _portable(run, path, left_out) or path)
        for path in _files(run.folder, weights=weights, predictions=predictions)
    ]
    if not predictions and (items := read_items(run) if "predictions" in run.left_out else items_of(run)):
        found.append((PurePosixPath(ITEMS), _text(items, indent=None)))
    return sorted(found, key=lambda each: each[0])


def _files(folder: Path, *, weights: bool, predictions: bool) -> Iterator[Path]:
    """The files of a run that are packed."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.is_symlink() and path.is_dir():
            raise InputError(
                "is a link to a folder, whose files a pack would lack.",
                where=str(path),
                hint="Replace it by the folder itself.",
            )
        # stages/1-task/train-in-flight: of an interrupted training
        unfinished = len(inside.parts) > 2 and inside.parts[2].endswith("-in-flight")
        hidden = unfinished or any(part.startswith(".") for part in inside.parts)
        if path.is_symlink() or not path.is_file() or hidden or path.name in (*LEFT_OUT, ITEMS):
            continue
        if (weights or path.suffix != TENSORS) and (predictions or inside.parts[0] != PREDICTIONS):
            yield path


def _portable(run: RunDir, path: Path, left_out: list[Kept]) -> bytes | None:
    """The content of a file without paths and names of this machine, with what is left out; None if unchanged."""
    if path == run.config_path:
        record = ConfigFile.parse(files.read_json(path), where=str(path), hint="Make the run again.")
        return _text(record.model_copy(update={"places": {}}))
    if path == run.folder / "status.json":
        status = read_status(path.parent)
        here = {"host": "", "pid": None, "error": None}
        return _text(
            status.model_copy(update=here | ({"left_out": left_out} if status.state == "done" else {}))
        )
    return None


def _text(record: Record, indent: int | None = 2) -> bytes:
    separators = None if indent else (",", ":")
    text = json.dumps(record.model_dump(), indent=indent, separators=separators, ensure_ascii=False)
    return f"{text}\n".encode()


def _check_config(folder: Path, run: str, source: Path) -> None:
    """Raises InputError that names the pack if the config of an unpacked run is missing or broken."""
    try:
        RunDir(folder).config  # noqa: B018
    except LaterVersion as error:
        raise InputError(error.what, where=f"{source}: {run}", hint=error.hint) from error
    except InputError as error:
        raise archive.damaged(source, f"'{run}/config.json': {error.what.rstrip('.')}") from error


def _lacks_some(made: Path, place: Path) -> bool:
    """Whether the run that is here lacks weights, predictions or item scores of the unpacked one."""
    inside = [path.relative_to(made) for path in made.rglob("*")]
    wanted = [path for path in inside if path.suffix == TENSORS or path.parts[0] == PREDICTIONS]
    if not (place / PREDICTIONS).is_dir():
        wanted += [path for path in inside if path.as_posix() == ITEMS]
    return any(not (place / path).exists() for path in wanted)


def _same(made: Path, place: Path) -> bool:
    """Whether the run that is here has the same config, id and scores."""
    try:
        ours, theirs = RunDir(made), RunDir(place)
        same = ours.id == theirs.id and ours.config.digest == theirs.config.digest
        return same and (made / "scores.jsonl").read_bytes() == (place / "scores.jsonl").read_bytes()
    except (OSError, SpecError):
        return False


def _settle(made: Path, workspace: Path) -> None:
    """Notes the workspace that plug-ins are looked up in here."""
    path = made / "config.json"
    record = ConfigFile.parse(files.read_json(path), where=str(path), hint="Pack the run again.")
    record.model_copy(update={"places": {"workspace": str(workspace.resolve())}}).write(path)
