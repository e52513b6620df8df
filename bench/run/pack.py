"""Runs as one file: packed to be shared, and unpacked elsewhere after every byte was checked."""

from __future__ import annotations

import filecmp
import hashlib
import io
import json
import logging
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from pydantic import Field

from moextend.bench.run.complete import TENSORS
from moextend.bench.run.config import ConfigFile
from moextend.bench.run.items import NAME as ITEMS
from moextend.bench.run.items import items_of, read_items
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import Kept
from moextend.bench.run.rundir import PACKS, PREDICTIONS, RunDir, locked, run_name
from moextend.bench.store import KeptFile
from moextend.errors import InputError, RunConflict, SpecError, listed
from moextend.util import files
from moextend.util.record import LaterVersion, Record

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PARTIAL = ".unpack-"
"""Prefix of the folder of a pack that is being unpacked."""
STALE = 86_400.0
"""Seconds after which such a folder is taken for one of a killed process."""
LEFT_OUT = (".lock", "owner.json", "worker.log", "job.json", "cancel.json")
"""Files that belong to a process or a machine."""
WITHOUT: dict[Kept, str] = {"predictions": "Add --no-predictions", "weights": "Leave --weights out"}
"""What a pack may leave out -> how to leave it out."""
LARGEST_MANIFEST = 64 << 20
"""Bytes."""
LARGEST_WINDOW = 1 << 27
"""Bytes of memory that a pack may ask for to be read."""


class Manifest(Record):
    """`manifest.json`, the first file of a pack: what it holds."""

    runs: list[str]
    """`<sequence>/<run>` of every run."""
    weights: bool = False
    """Whether what the stages learned is there, too."""
    predictions: bool = True
    """Whether the single answers are there."""
    files: dict[str, KeptFile] = Field(default_factory=dict)
    """Path in the pack, `<sequence>/<run>/...` -> size and digest."""


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
    form = _form(out, "--out")
    if not runs:
        raise InputError("no run to pack.", where="RUN", hint="Run first: moextend bench run.")
    runs = sorted(runs, key=lambda run: run_name(run.folder))
    waiting = [run_name(run.folder) for run in runs if read_status(run.folder).state != "done"]
    if waiting and not unfinished:
        raise InputError(
            f"not done: {', '.join(waiting)}.",
            where="RUN",
            hint="Finish or leave them out, or add --unfinished.",
        )
    wanted = {"weights": weights, "predictions": predictions}
    left_out: list[Kept] = [kind for kind in get_args(Kept) if not wanted[kind]]
    for run in runs:
        if lacking := [kind for kind in run.left_out if wanted[kind]]:
            raise InputError(
                f"is from a pack without {listed(lacking)}.",
                where=run_name(run.folder),
                hint=f"{'. '.join(WITHOUT[kind] for kind in lacking)}. Or leave the run out.",
            )
    names = [run_name(run.folder) for run in runs]
    if len(set(names)) < len(names):
        raise InputError(
            "two runs have the same name.", where="RUN", hint="Pack runs of one --runs folder at a time."
        )
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
            files={name: _kept(found) for name, found in content.items()},
        )
        with files.atomic(out) as temporary:
            with _writing(temporary, form) as archive:
                _add(archive, MANIFEST, manifest.model_dump_json(indent=1).encode())
                for name, found in content.items():
                    _add(archive, name, found)
            if out.exists() and not filecmp.cmp(out, temporary, shallow=False):
                raise InputError(
                    "exists already, with other content.",
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
    form = _form(source, str(source))
    runs.mkdir(parents=True, exist_ok=True)
    _remove_stale(runs)
    with tempfile.TemporaryDirectory(dir=runs, prefix=PARTIAL) as name:
        folder = Path(name)
        manifest = _extract(source, form, folder)
        for run in manifest.runs:
            _check_config(folder / run, run, source)
        written, known, bare = [], [], []
        places = [(folder / run, runs / run) for run in manifest.runs]
        for made, place in places:
            if place.exists() and not _same(made, place):
                raise RunConflict(
                    "another run is here.", where=str(place), hint="Unpack into another --runs folder."
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


def _remove_stale(runs: Path) -> None:
    """Removes what killed processes unpacked in part."""
    for folder in runs.glob(f"{PARTIAL}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE:
                log.warning("%s: a killed process left it; removed.", folder)
                shutil.rmtree(folder)


def _form(path: Path, where: str) -> str:
    for suffix, form in PACKS.items():
        if path.name.endswith(suffix):
            return form
    raise InputError(
        "is a folder, not a pack." if path.is_dir() else f"'{path.name}' has none of the suffixes of a pack.",
        where=where,
        hint=f"Use one of {', '.join(PACKS)}.",
    )


def _content(run: RunDir, left_out: list[Kept]) -> list[tuple[PurePosixPath, Path | bytes]]:
    """The files of a run that are packed, in order, as they are or as what is written instead."""
    weights, predictions = "weights" not in left_out, "predictions" not in left_out
    found: list[tuple[PurePosixPath, Path | bytes]] = [
        (PurePosixPath(path.relative_to(run.folder)), _portable(path, left_out) or path)
        for path in _files(run.folder, weights=weights, predictions=predictions)
    ]
    if not predictions and (items := read_items(run) if "predictions" in run.left_out else items_of(run)):
        found.append((PurePosixPath(ITEMS), _text(items, indent=None)))
    return sorted(found, key=lambda each: each[0])


def _files(folder: Path, *, weights: bool, predictions: bool) -> Iterator[Path]:
    """The files of a run that are packed."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") or part.endswith("-in-flight") for part in inside.parts)
        if path.is_symlink() or not path.is_file() or hidden or path.name in (*LEFT_OUT, ITEMS):
            continue
        if (weights or path.suffix != TENSORS) and (predictions or inside.parts[0] != PREDICTIONS):
            yield path


def _portable(path: Path, left_out: list[Kept]) -> bytes | None:
    """The content of a file without paths and names of this machine, with what is left out; None if unchanged."""
    if path.name == "config.json" and path.parent.parent.name != "stages":
        record = ConfigFile.parse(files.read_json(path), where=str(path), hint="Make the run again.")
        return _text(record.model_copy(update={"places": {}}))
    if path.name == "status.json":
        status = read_status(path.parent)
        here = {"host": "", "pid": None, "born": None, "error": None}
        return _text(
            status.model_copy(update=here | ({"left_out": left_out} if status.state == "done" else {}))
        )
    return None


def _text(record: Record, indent: int | None = 2) -> bytes:
    separators = None if indent else (",", ":")
    text = json.dumps(record.model_dump(), indent=indent, separators=separators, ensure_ascii=False)
    return f"{text}\n".encode()


def _kept(content: Path | bytes) -> KeptFile:
    if isinstance(content, Path):
        return KeptFile.of(content)
    return KeptFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _add(archive: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    """Adds a file without time, owner and rights of this machine."""
    info = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
        return
    info.size = content.stat().st_size
    with content.open("rb") as file:
        archive.addfile(info, file)


@contextmanager
def _writing(path: Path, form: str) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if form == "zst":
            import zstandard

            file = stack.enter_context(zstandard.ZstdCompressor(level=10).stream_writer(file, closefd=False))
        elif form == "gz":
            import gzip

            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            yield archive


@contextmanager
def _reading(path: Path, form: str) -> Iterator[tarfile.TarFile]:
    mode: Literal["r|", "r|gz"] = "r|gz" if form == "gz" else "r|"
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("rb"))
        if form == "zst":
            import zstandard

            reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
            file = stack.enter_context(reader.stream_reader(file, closefd=False))
        with tarfile.open(fileobj=file, mode=mode) as archive:
            yield archive


def _extract(source: Path, form: str, folder: Path) -> Manifest:
    """Writes the files of a pack below `folder`, each as the manifest says."""
    try:
        with _reading(source, form) as archive:
            manifest = _manifest(archive, source)
            waiting = dict(manifest.files)
            while member := archive.next():
                kept = waiting.pop(member.name, None)
                if kept is None or not member.isreg() or member.size != kept.bytes:
                    raise _damaged(source, f"'{member.name}' is not what its manifest says")
                _write(archive, member, folder / member.name, kept, source)
    except _unreadable() as error:
        if isinstance(error, FileNotFoundError):
            raise InputError("no such file.", where=str(source), hint="Check the path.") from error
        raise _damaged(source, str(error) or type(error).__name__) from error
    if waiting:
        raise _damaged(source, f"'{next(iter(waiting))}' is missing")
    return manifest


def _unreadable() -> tuple[type[Exception], ...]:
    """What reading a file raises that is no pack."""
    import zstandard

    return (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, zlib.error, zstandard.ZstdError)


def _manifest(archive: tarfile.TarFile, source: Path) -> Manifest:
    first = archive.next()
    content = archive.extractfile(first) if first and first.isreg() and first.name == MANIFEST else None
    if first is None or content is None or first.size > LARGEST_MANIFEST:
        raise _damaged(source, f"it does not begin with {MANIFEST}")
    values = json.loads(content.read())
    manifest = Manifest.parse(
        values, where=f"{source}: {MANIFEST}", hint="Copy it again, or pack the runs again."
    )
    for run in manifest.runs:
        if len(_parts(run, source)) != 2:
            raise _damaged(source, f"'{run}' is not the name of a run")
    runs = tuple(f"{run}/" for run in manifest.runs)
    for name in manifest.files:
        _parts(name, source)
        if not name.startswith(runs):
            raise _damaged(source, f"'{name}' belongs to no run")
    return manifest


def _parts(name: str, source: Path) -> tuple[str, ...]:
    """The parts of a path in a pack; InputError where it could lead out of its folder or is hidden."""
    parts = PurePosixPath(name).parts
    plain = name == "/".join(parts) and "\\" not in name and "\0" not in name
    if not plain or any(part.startswith(".") or part == "/" for part in parts):
        raise _damaged(source, f"'{name}' is no path of a run")
    return parts


def _write(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, kept: KeptFile, source: Path
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    if files.sha256(path) != kept.sha256:
        raise _damaged(source, f"'{member.name}' has another content than its manifest says")


def _damaged(source: Path, why: str) -> InputError:
    return InputError(f"no pack of runs, or a damaged one: {why}.", where=str(source), hint="Copy it again.")


def _check_config(folder: Path, run: str, source: Path) -> None:
    """Raises InputError that names the pack if the config of an unpacked run is missing or broken."""
    try:
        RunDir(folder).config  # noqa: B018
    except LaterVersion as error:
        raise InputError(error.what, where=f"{source}: {run}", hint=error.hint) from error
    except InputError as error:
        raise _damaged(source, f"'{run}/config.json': {error.what.rstrip('.')}") from error


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
