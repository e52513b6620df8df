"""Runs as one file: packed to be shared, and unpacked elsewhere after every byte was checked.

A pack is a compressed archive that begins with a manifest of its other files, and is read only as that says.
"""

from __future__ import annotations

import filecmp
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast, get_args

import zstandard
from pydantic import Field

from moextend.bench.run.complete import EVERY, TENSORS, lacks, names_of
from moextend.bench.run.config import ConfigFile
from moextend.bench.run.inputs import method_code
from moextend.bench.run.items import NAME as ITEMS
from moextend.bench.run.items import items_of, read_items
from moextend.bench.run.progress import CANCEL, read_status
from moextend.bench.run.records import Kept
from moextend.bench.run.rundir import PACK, PREDICTIONS, RunDir, run_name
from moextend.bench.store import KeptFile
from moextend.errors import InputError, RunConflict, SpecError, listed
from moextend.util import files
from moextend.util.spec import LaterVersion, Record

PARTIAL = ".unpack-"
"""Prefix of the folder of a pack that is being unpacked."""
LEFT_OUT = ("worker.log", "server.log", "job.json", CANCEL)
"""Files that belong to a process or a machine."""
WITHOUT: dict[Kept, str] = {"predictions": "Add --no-predictions", "weights": "Leave --weights out"}
"""What a pack may leave out -> how to leave it out."""
CODE = "code"
"""Folder of a packed run with the plug-in that trained it."""
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 64 << 20
"""Bytes."""
LARGEST_WINDOW = 1 << 27
"""Bytes of memory that a pack may ask for to be read."""
LARGEST_RATIO = 1000
"""Unpacked bytes for each byte of a pack: records of runs have 5 to 50."""
FRAME = 8192
"""Bytes of headers and padding of one file in an archive, at most."""
ALWAYS = 64 << 20
"""Unpacked bytes that are not refused, whatever the size of the pack."""
Content = Path | bytes
"""A file as it is, or what is written instead."""


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

    @property
    def bytes(self) -> int:
        """Size of all files once they are unpacked."""
        return sum(abs(kept.bytes) for kept in self.files.values())


@dataclass(frozen=True)
class Unpacked:
    """What became of a pack."""

    written: list[Path]
    """Folders of runs that are new here."""
    known: list[Path]
    """Folders of runs that were here before, left as they are, whatever more the pack has of them."""


def pack(runs: Sequence[RunDir], out: Path, *, weights: bool = False, predictions: bool = True) -> Manifest:
    """Writes the records and predictions of runs into one file, with `weights` also what their stages learned.

    The code of a method that is a file of the workspace is included, for readers: nothing runs it.
    Without predictions, the score of each item is kept instead (items.json): tables and tests stay the same, and only
    checks of the scores need the answers.
    Places of this machine are left out of config.json; the host name and the error out of status.json. Equal runs make
    equal bytes, in whatever order they are named.

    Raises:
        InputError: `out` has another suffix than .tar.zst, or exists with other bytes; there is no run; a run is not
            done or not complete, or its predictions were changed; two runs have the same name; a run itself is from a
            pack without what is wanted.
    """
    _check_suffix(out, "--out")
    runs = sorted(runs, key=lambda run: run_name(run.folder))
    wanted = {"weights": weights, "predictions": predictions}
    left_out: list[Kept] = [kind for kind in get_args(Kept) if not wanted[kind]]
    _check(runs, left_out)
    names = [run_name(run.folder) for run in runs]
    content = {
        f"{name}/{inside}": found
        for name, run in zip(names, runs, strict=True)
        for inside, found in _content(run, left_out)
    }
    kept = {name: _kept_file(found) for name, found in content.items()}
    manifest = Manifest(runs=names, weights=weights, predictions=predictions, files=kept)
    with files.atomic(out) as temporary:
        with _writing(temporary) as archive:
            _add(archive, MANIFEST, manifest.model_dump_json(indent=1).encode())
            for name, found in content.items():
                _add(archive, name, found)
        if out.exists() and not filecmp.cmp(out, temporary, shallow=False):
            raise InputError(
                "already exists with other content.",
                where=f"--out {out}",
                hint="Name a new file, or remove this one.",
            )
    return manifest


def _check_suffix(path: Path, where: str) -> None:
    if not path.name.endswith(PACK):
        raise InputError(
            f"'{path.name}' does not have the suffix of a pack.", where=where, hint=f"Use {PACK}."
        )


def _check(runs: Sequence[RunDir], left_out: Sequence[Kept]) -> None:
    """Raises InputError if these runs cannot be packed with all but `left_out`."""
    if not runs:
        raise InputError("no run to pack.", where="RUN", hint="Run first: moextend bench run.")
    if waiting := [run_name(run.folder) for run in runs if read_status(run.folder).state != "done"]:
        raise InputError(f"not done: {', '.join(waiting)}.", where="RUN", hint="Finish or leave them out.")
    for run in runs:
        where = run_name(run.folder)
        if lacking := [kind for kind in run.left_out if kind not in left_out]:
            hint = f"{'. '.join(WITHOUT[kind] for kind in lacking)}. Or leave the run out."
            raise InputError(f"is from a pack without {listed(lacking)}.", where=where, hint=hint)
        if gaps := lacks(run, most=EVERY):
            hint = "The same command makes it again. Or leave the run out."
            raise InputError(f"lacks {names_of(gaps)}.", where=where, hint=hint)
    if len({run_name(run.folder) for run in runs}) < len(runs):
        raise InputError(
            "two runs have the same name.", where="RUN", hint="Pack the runs of one folder at a time."
        )


def _content(run: RunDir, left_out: list[Kept]) -> list[tuple[PurePosixPath, Content]]:
    """The files of a run that are packed, in order."""
    weights, predictions = "weights" not in left_out, "predictions" not in left_out
    found: list[tuple[PurePosixPath, Content]] = [
        (PurePosixPath(path.relative_to(run.folder)), _portable(run, path, left_out))
        for path in _files(run.folder, weights=weights, predictions=predictions)
    ]
    if not predictions and (items := read_items(run) if "predictions" in run.left_out else items_of(run)):
        found.append((PurePosixPath(ITEMS), _text(items, indent=None)))
    if not (run.folder / CODE).is_dir():  # else it is from a pack, with its code
        found += [(PurePosixPath(CODE, name), path) for name, path in method_code(run).items()]
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
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.is_symlink() or not path.is_file() or hidden or path.name in (*LEFT_OUT, ITEMS):
            continue
        if (weights or path.suffix != TENSORS) and (predictions or inside.parts[0] != PREDICTIONS):
            yield path


def _portable(run: RunDir, path: Path, left_out: list[Kept]) -> Content:
    """A file, or its content without paths and names of this machine, with what is left out."""
    if path == run.config_path:
        record = ConfigFile.parse(files.read_json(path), where=str(path), hint="Make the run again.")
        return _text(record.model_copy(update={"places": {}}))
    if path == run.folder / "status.json":
        status = read_status(path.parent)
        return _text(status.model_copy(update={"host": "", "pid": None, "left_out": left_out}))
    return path


def _text(record: Record, indent: int | None = 2) -> bytes:
    separators = None if indent else (",", ":")
    text = json.dumps(record.model_dump(), indent=indent, separators=separators, ensure_ascii=False)
    return f"{text}\n".encode()


def _kept_file(content: Content) -> KeptFile:
    if isinstance(content, Path):
        return KeptFile.of(content)
    return KeptFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


@contextmanager
def _writing(path: Path) -> Iterator[tarfile.TarFile]:
    # Runs of a sequence have long parts in common, far apart.
    window = LARGEST_WINDOW.bit_length() - 1
    parameters = zstandard.ZstdCompressionParameters.from_level(15, window_log=window, enable_ldm=True)
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file, closefd=False) as packed,
        tarfile.open(fileobj=cast(IO[bytes], packed), mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        yield archive


def _add(archive: tarfile.TarFile, name: str, content: Content) -> None:
    """Adds a file without time, owner and rights of this machine."""
    info = tarfile.TarInfo(name)
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        info.size = file.seek(0, 2)
        file.seek(0)
        archive.addfile(info, file)


def unpack(source: Path, runs: Path, workspace: Path) -> Unpacked:
    """Writes the runs of a pack below `runs`, each whole or not at all.

    A run that is here already, with the same records, is left as it is.

    Raises:
        InputError: the file is no pack, is damaged, holds more or other files than its manifest says, or a run
            without a valid config.
        RunConflict: another run has the folder of one of these.
    """
    _check_suffix(source, str(source))
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs, prefix=PARTIAL) as name:
        folder = Path(name)
        manifest = _extract(source, folder)
        for run in manifest.runs:
            _check_config(folder / run, run, source)
        done = Unpacked([], [])
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
                done.known.append(place)
                continue
            path = made / "config.json"  # plug-ins are looked up in this workspace
            record = ConfigFile.parse(files.read_json(path), where=str(path), hint="Pack the run again.")
            record.model_copy(update={"places": {"workspace": str(workspace.resolve())}}).write(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            made.rename(place)
            done.written.append(place)
    return done


def _check_config(folder: Path, run: str, source: Path) -> None:
    """Raises InputError that names the pack if the config of an unpacked run is missing or broken."""
    try:
        RunDir(folder).config  # noqa: B018
    except LaterVersion as error:
        raise InputError(error.what, where=f"{source}: {run}", hint=error.hint) from error
    except InputError as error:
        raise _damaged(source, f"'{run}/config.json': {error.what.rstrip('.')}") from error


def _same(made: Path, place: Path) -> bool:
    """Whether the run that is here has the same config, id and scores."""
    try:
        ours, theirs = RunDir(made), RunDir(place)
        same = ours.id == theirs.id and ours.config.digest == theirs.config.digest
        return same and (made / "scores.jsonl").read_bytes() == (place / "scores.jsonl").read_bytes()
    except (OSError, SpecError):
        return False


class _Bounded:
    """The archive in a pack, of which no more than `left` bytes are read."""

    def __init__(self, file: Any) -> None:
        self._file, self.left = file, LARGEST_MANIFEST + FRAME

    def read(self, size: int) -> bytes:
        """The next bytes. Raises EOFError where there are more than are left."""
        found: bytes = self._file.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise EOFError("it holds more than its manifest states")
        return found


def _extract(source: Path, folder: Path) -> Manifest:
    """Writes the files of a pack below `folder`, each as the manifest says, and reads no more than it says.

    Raises InputError before the first file if these are too many bytes for such a pack, or for the disk.
    """
    with _reading(source) as (archive, content):
        manifest = _manifest(archive, source)
        _check_size(manifest, source, folder)
        content.left = manifest.bytes + FRAME * (len(manifest.files) + 1)
        waiting = dict(manifest.files)
        while member := archive.next():
            kept = waiting.pop(member.name, None)
            if kept is None or not member.isreg() or member.size != kept.bytes:
                raise _damaged(source, f"'{member.name}' does not match its manifest")
            path, inside = folder / member.name, archive.extractfile(member)
            assert inside is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                shutil.copyfileobj(inside, target, 1 << 20)
            if files.sha256(path) != kept.sha256:
                raise _damaged(source, f"'{member.name}' has other content than its manifest states")
    if waiting:
        raise _damaged(source, f"'{next(iter(waiting))}' is missing")
    return manifest


@contextmanager
def _reading(source: Path) -> Iterator[tuple[tarfile.TarFile, _Bounded]]:
    """The archive in a pack, and the bytes that are read of it; InputError for what is wrong with them."""
    reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
    try:
        with (
            source.open("rb") as file,
            reader.stream_reader(file, closefd=False) as opened,
            tarfile.open(fileobj=cast(IO[bytes], content := _Bounded(opened)), mode="r|") as archive,
        ):
            yield archive, content
    except FileNotFoundError as error:
        raise InputError("no such file.", where=str(source), hint="Check the path.") from error
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, zstandard.ZstdError) as error:
        raise _damaged(source, str(error) or type(error).__name__) from error


def read_manifest(source: Path) -> Manifest:
    """What a pack says that it holds; nothing after its first file is read.

    Raises:
        InputError: the file is no pack, or its manifest is damaged.
    """
    _check_suffix(source, str(source))
    with _reading(source) as (archive, _):
        return _manifest(archive, source)


def _manifest(archive: tarfile.TarFile, source: Path) -> Manifest:
    first = archive.next()
    content = archive.extractfile(first) if first and first.isreg() and first.name == MANIFEST else None
    if first is None or content is None or first.size > LARGEST_MANIFEST:
        raise _damaged(source, f"it does not begin with {MANIFEST}")
    hint = "Copy it again, or pack the runs again."
    manifest = Manifest.parse(json.loads(content.read()), where=f"{source}: {MANIFEST}", hint=hint)
    runs = tuple(f"{run}/" for run in manifest.runs)
    for name in (*manifest.runs, *manifest.files):
        parts = PurePosixPath(name).parts
        plain = name == "/".join(parts) and "\\" not in name and name.isprintable()
        if not plain or any(part.startswith(".") or part == "/" for part in parts):
            raise _damaged(source, f"'{name}' is not the path of a run")  # it could lead out of the folder
        if len(parts) != 2 if name in manifest.runs else not name.startswith(runs):
            raise _damaged(source, f"'{name}' belongs to no run")
    return manifest


def _check_size(manifest: Manifest, source: Path, folder: Path) -> None:
    """Raises InputError if the files of a pack would fill the disk, or are no records of runs by their size."""
    packed, free = source.stat().st_size, shutil.disk_usage(folder).free
    most = max(ALWAYS, LARGEST_RATIO * packed)
    if manifest.bytes > most:
        raise InputError(
            f"its {packed:,} bytes would become {manifest.bytes:,}, and runs become at most {most:,}.",
            where=str(source),
            hint="Ask where it is from: no bench pack has written it.",
        )
    if manifest.bytes > free:
        raise InputError(
            f"needs {manifest.bytes:,} bytes, and the disk has {free:,} left.",
            where=str(source),
            hint="Free some, or name a folder on another disk: --out.",
        )


def _damaged(source: Path, why: str) -> InputError:
    return InputError(
        f"not a pack of runs, or a damaged one: {why}.", where=str(source), hint="Copy it again."
    )
