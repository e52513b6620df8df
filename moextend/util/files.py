"""Interrupt-safe files: atomic writes, append-only lines, digests; and texts that no file can hold."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moextend.errors import InputError, MoextendError, SpecError
from moextend.util.foreign import of_disk

BLOCK = 1 << 16
"""Bytes per read when searching the last line break from the end."""
DEEPEST = 100
"""Levels of lists and objects in JSON; deeper ones are refused."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""Escape of a surrogate in JSON; a pair of them is a character."""
_guards: list[tuple[str, Callable[[], None]]] = []
"""Folder, ending with a separator, and what is called before a change below it."""


def lone(text: str) -> str | None:
    """The first lone surrogate of a text, escaped ("\\ud800"); None if it has none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return ascii(text[error.start])[1:-1]
    return None


def refuse_surrogates(text: str, *, where: str, hint: str = "Correct or remove it.") -> None:
    """Raises InputError for a text with a lone surrogate."""
    if found := lone(text):
        raise InputError(f"has a lone surrogate ({found}), which is not a character.", where=where, hint=hint)


@contextmanager
def guarded(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Context in which every change of a file below `folder` calls `check` first, which raises if it may not be."""
    guard = (os.path.join(os.path.abspath(folder), ""), check)  # noqa: PTH100, PTH118
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)


def may_change(path: Path) -> None:
    """Raises the error of a guard (see `guarded`) if this process may not change `path` any more."""
    for folder, check in tuple(_guards):
        if os.path.join(os.path.abspath(path), "").startswith(folder):  # noqa: PTH100, PTH118
            check()


def remove(path: Path) -> None:
    """Removes a file if it exists, and if this process may change it."""
    may_change(path)
    path.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Context that turns a full disk, missing permissions or a name with a lone surrogate into one clear error."""
    try:
        yield
    except UnicodeEncodeError:
        refuse_surrogates(str(path), where=str(path), hint="Rename it.")
        raise
    except OSError as error:
        found = of_disk(error, path)
        if found is None:
            raise
        raise found from error


def exists(path: Path | str) -> bool:
    """Whether `path` exists; False also for an invalid name, such as one that is too long."""
    try:
        Path(path).stat()
    except (OSError, ValueError):
        return False
    return True


def check_writable(path: Path, *, where: str) -> None:
    """Raises InputError if `path` is a file, or a folder that cannot be created or written to; leaves no files."""
    place = path
    while not exists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"'{place}' is not a folder.", where=f"{where} {path}", hint="Name a folder.")
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".moextend"):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to '{place}' ({error.strerror}).",
            where=f"{where} {path}",
            hint="Name a writable folder on a disk with free space.",
        ) from error


@contextmanager
def atomic(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """Context with a temporary path in the folder of `path`, renamed to it on success and removed on failure.

    With `synced` the content is synced to disk first; without it, which is much faster, a power failure may leave an
    incomplete file.
    """
    may_change(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _hidden(path)
        try:
            temporary.touch(0o600, exist_ok=False)
            yield temporary
            if synced:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            may_change(path)
            temporary.replace(path)
        finally:
            try:
                temporary.unlink(missing_ok=True)
            except KeyboardInterrupt:
                temporary.unlink(missing_ok=True)
                raise


def _hidden(path: Path) -> Path:
    """A new name next to `path`. It is known before the file is made: an interrupt in between leaves nothing."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def check_new(folder: Path) -> None:
    """Raises InputError for a file, or a folder that is not empty."""
    if exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("already exists.", where=str(folder), hint="Name a new folder, or remove this one.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Context with a temporary folder next to `folder`, renamed to it on success and removed on failure.

    Raises:
        InputError: the folder exists and is not empty, or the disk is full.
    """
    folder = folder.absolute()
    check_new(folder)
    may_change(folder)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = _hidden(folder)
        try:
            temporary.mkdir(0o700)
            made = temporary / folder.name
            made.mkdir()
            yield made
            for path in made.rglob("*.safetensors"):  # the library writes them for their owner only
                path.chmod(0o666 & ~_umask())
            may_change(folder)
            made.replace(folder)
        finally:
            try:
                shutil.rmtree(temporary, ignore_errors=True)
            except BaseException:  # after an interrupt it may fail by its own, as it closes a folder twice
                shutil.rmtree(temporary, ignore_errors=True)
                raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Writes `text` atomically; see `atomic`."""
    write_bytes(path, text.encode(), synced=synced)


def write_bytes(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Writes `data` atomically; see `atomic`."""
    with atomic(path, synced=synced) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, records: list[Any], *, synced: bool = True, signed: bool = False) -> None:
    """Writes one JSON line per record, atomically (see `atomic`); `signed`: for `signed_lines`."""
    lines = [json.dumps(record, ensure_ascii=False).encode() for record in records]
    lines += [signature(path, lines)] if signed else []
    write_bytes(path, b"".join(line + b"\n" for line in lines), synced=synced)


def signed_lines(path: Path) -> list[bytes]:
    """Lines of a file that was written `signed`; of no lines if there is no file. SpecError if it is another one."""
    lines = raw_lines(path)
    if lines and lines.pop() != signature(path, lines):
        raise SpecError(
            "was edited, or copied from another place.",
            where=str(path),
            hint="Remove it, so that it is made again.",
        )
    return lines


def signature(path: Path, lines: Sequence[bytes]) -> bytes:
    """Last line of a file of these lines that is written `signed`; it holds for the name of the file and its folder."""
    place = f"{path.parent.name}/{path.name}".encode()
    return json.dumps({"sha256": hashlib.sha256(b"\n".join([place, *lines])).hexdigest()}).encode()


def read_json(path: Path, *, unique: bool = False) -> Any:
    """JSON value of the file `path`; `unique`: a key that occurs twice in a mapping is refused.

    Raises:
        FileNotFoundError: there is no such file.
        SpecError: it is not JSON, or a key occurs twice.
        InputError: it cannot be read.
    """
    hook = _unique if unique else None
    hint = "It is damaged or was edited; correct or remove it."
    return parse_json(_read(path), where=str(path), hint=hint, hook=hook)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of JSON; ValueError if a key occurs twice, of which `json` takes the last one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key '{next(key for key in keys if keys.count(key) > 1)}' occurs twice")
    return found


def _read(path: Path) -> bytes:
    """Bytes of a regular file; a FIFO or a device is refused, as it may never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("cannot be read (not a regular file).", where=str(path), hint="Move it away.")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror}).", where=str(path), hint="Check the file and its permissions."
        ) from error


def append_lines(path: Path, records: list[Any]) -> None:
    """Appends one JSON line per record: all of them, synced, or none.

    An incomplete last line is removed first.
    """
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            may_change(path)
            before = _cut_torn(path)
            try:
                _write_all(file, text)
                os.fsync(file.fileno())
            except BaseException:
                # If it fails, the next append cuts what is left. After a loss, later lines are another process's.
                with suppress(OSError, MoextendError):
                    may_change(path)
                    os.ftruncate(file.fileno(), before)
                raise


def _write_all(file: io.FileIO, text: bytes) -> None:
    """Writes all bytes; a single call of a raw file may write only a part."""
    rest = memoryview(text)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def read_lines(path: Path, sha256: str = "") -> list[Any]:
    """Records of an append-only file, without an incomplete last line; `sha256`: of its content, where it is known.

    Raises:
        SpecError: another line is not JSON, or the content is another one.
        InputError: the file cannot be read.
    """
    lines = raw_lines(path, sha256)
    return parsed(lines, path, range(1, len(lines) + 1))


def raw_lines(path: Path, sha256: str = "") -> list[bytes]:
    """As `read_lines`, without a look at the lines."""
    try:
        content = _read(path)
    except FileNotFoundError:
        return []
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise SpecError(
            "is not the file that was scored: it was edited.",
            where=str(path),
            hint="Restore the original file, or run again.",
        )
    return content.split(b"\n")[:-1]  # not splitlines(): a text may hold other line separators


def parsed(lines: Sequence[bytes], path: Path, numbers: Iterable[int]) -> list[Any]:
    """Records of lines of `path` with these numbers; SpecError if one is not JSON."""
    hint = "It is damaged or was edited; remove the line."
    with suppress(InputError):  # all lines as one list, which is far faster
        records: list[Any] = parse_json(b"[%s]" % b",".join(lines), where=str(path), hint=hint)
        if len(records) == len(lines):
            return records
    return [
        parse_json(line, where=f"{path}:{number}", hint=hint)
        for line, number in zip(lines, numbers, strict=True)
    ]


def parse_json(
    text: bytes, *, where: str, hint: str, hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Value of JSON in UTF-8, UTF-16 or UTF-32; SpecError if it is not JSON, or holds a lone surrogate."""
    try:
        decoded = text.decode(json.detect_encoding(text))
        value = json.loads(decoded, object_pairs_hook=hook)
        if _is_deep(value):
            raise ValueError(f"it nests deeper than {DEEPEST} levels")
        suspicious = _SURROGATE.search(decoded)
        found = lone(json.dumps(value, ensure_ascii=False)) if suspicious else None
    except (ValueError, RecursionError) as error:
        raise SpecError(f"not valid JSON ({error}).", where=where, hint=hint) from error
    if found:
        raise SpecError(
            f"holds a lone surrogate ({found}), which is not a character.", where=where, hint=hint
        )
    return value


def _is_deep(value: Any) -> bool:
    """Whether a value nests deeper than functions that call themselves can follow."""
    level = [value]
    for _ in range(DEEPEST):
        inside = (
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        )
        level = [each for one in inside for each in one if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def repair_lines(path: Path) -> list[Any]:
    """Removes an incomplete last line from the file; returns the records."""
    cut_torn_line(path)
    return read_lines(path)


def cut_torn_line(path: Path) -> None:
    """Removes an incomplete last line from the file."""
    if path.exists():
        may_change(path)
        with disk_errors(path):
            _cut_torn(path)


def _cut_torn(path: Path) -> int:
    """Removes the bytes after the last line break; returns the length of the file."""
    with path.open("rb") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                end = start + place + 1
                break
            end = start
    if end < size:
        os.truncate(path, end)
    return end


def stamp(found: os.stat_result) -> str:
    """What changes with the content of a file, also where a copy sets its modification time (tar, rsync, touch -r)."""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*values: Any) -> str:
    """Sixteen hex digits over JSON values or bytes."""
    hasher = hashlib.sha256()
    for value in values:
        if isinstance(value, bytes):
            hasher.update(value)
        else:
            hasher.update(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode())
        hasher.update(b"\0")
    return hasher.hexdigest()[:16]
