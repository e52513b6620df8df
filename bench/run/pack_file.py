"""The file of a pack: an archive that begins with a manifest of its other files, and is read only as that says."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from pydantic import Field

from moextend.bench.run.rundir import PACKS
from moextend.bench.store import KeptFile
from moextend.errors import InputError
from moextend.util import files
from moextend.util.record import Record

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 64 << 20
"""Bytes."""
LARGEST_WINDOW = 1 << 27
"""Bytes of memory that a pack may ask for to be read."""
LARGEST_RATIO = 1000
"""Unpacked bytes for each byte of a pack: records of runs have 5 to 50."""
ALWAYS = 64 << 20
"""Unpacked bytes that are not refused, whatever the size of the pack."""
FRAME = 8192
"""Bytes of headers and padding of one file in an archive, at most."""


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


def form_of(path: Path, where: str) -> str:
    """Form of a pack by its suffix; `where`: the option or file."""
    for suffix, form in PACKS.items():
        if path.name.endswith(suffix):
            return form
    raise InputError(
        "is a folder, not a pack." if path.is_dir() else f"'{path.name}' has none of the suffixes of a pack.",
        where=where,
        hint=f"Use one of {', '.join(PACKS)}.",
    )


def kept_file(content: Path | bytes) -> KeptFile:
    """Size and digest."""
    if isinstance(content, Path):
        return KeptFile.of(content)
    return KeptFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def write(path: Path, form: str, manifest: Manifest, content: Mapping[str, Path | bytes]) -> None:
    """Writes a pack: the manifest, and files by their path in it."""
    with _writing(path, form) as archive:
        _add(archive, MANIFEST, manifest.model_dump_json(indent=1).encode())
        for name, found in content.items():
            _add(archive, name, found)


def extract(source: Path, form: str, folder: Path) -> Manifest:
    """Writes the files of a pack below `folder`, each as the manifest says, and reads no more than it says.

    Raises InputError before the first file if these are too many bytes for such a pack, or for the disk.
    """
    try:
        with _reading(source, form) as (archive, content):
            manifest = _manifest(archive, source)
            _check_size(manifest, source, folder)
            content.left = manifest.bytes + FRAME * (len(manifest.files) + 1)
            waiting = dict(manifest.files)
            while member := archive.next():
                kept = waiting.pop(member.name, None)
                if kept is None or not member.isreg() or member.size != kept.bytes:
                    raise damaged(source, f"'{member.name}' does not match its manifest")
                _write(archive, member, folder / member.name, kept, source)
    except _unreadable() as error:
        if isinstance(error, FileNotFoundError):
            raise InputError("no such file.", where=str(source), hint="Check the path.") from error
        raise damaged(source, str(error) or type(error).__name__) from error
    if waiting:
        raise damaged(source, f"'{next(iter(waiting))}' is missing")
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


def damaged(source: Path, why: str) -> InputError:
    """The error of a file that is no complete pack."""
    return InputError(
        f"not a pack of runs, or a damaged one: {why}.", where=str(source), hint="Copy it again."
    )


def _unreadable() -> tuple[type[Exception], ...]:
    """What reading a file raises that is no pack."""
    import zstandard

    return (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, zlib.error, zstandard.ZstdError)


def _manifest(archive: tarfile.TarFile, source: Path) -> Manifest:
    first = archive.next()
    content = archive.extractfile(first) if first and first.isreg() and first.name == MANIFEST else None
    if first is None or content is None or first.size > LARGEST_MANIFEST:
        raise damaged(source, f"it does not begin with {MANIFEST}")
    values = json.loads(content.read())
    manifest = Manifest.parse(
        values, where=f"{source}: {MANIFEST}", hint="Copy it again, or pack the runs again."
    )
    for run in manifest.runs:
        if len(_parts(run, source)) != 2:
            raise damaged(source, f"'{run}' is not the name of a run")
    runs = tuple(f"{run}/" for run in manifest.runs)
    for name in manifest.files:
        _parts(name, source)
        if not name.startswith(runs):
            raise damaged(source, f"'{name}' belongs to no run")
    return manifest


def _parts(name: str, source: Path) -> tuple[str, ...]:
    """The parts of a path in a pack; InputError where it could lead out of its folder or is hidden."""
    parts = PurePosixPath(name).parts
    plain = name == "/".join(parts) and "\\" not in name and "\0" not in name
    if not plain or any(part.startswith(".") or part == "/" for part in parts):
        raise damaged(source, f"'{name}' is not the path of a run")
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
        raise damaged(source, f"'{member.name}' does not have the content that its manifest states")


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


class _Content:
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


@contextmanager
def _reading(path: Path, form: str) -> Iterator[tuple[tarfile.TarFile, _Content]]:
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("rb"))
        if form == "zst":
            import zstandard

            reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
            file = stack.enter_context(reader.stream_reader(file, closefd=False))
        elif form == "gz":
            import gzip

            file = stack.enter_context(gzip.GzipFile("", "rb", fileobj=file))
        content = _Content(file)
        with tarfile.open(fileobj=cast(IO[bytes], content), mode="r|") as archive:
            yield archive, content
