"""Errors of Python and other libraries in one line: kind, message, place and hint."""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from moextend.errors import InputError, MoextendError, RunFailed

DEBUG = "MOEXTEND_DEBUG"
"""Environment variable; 1 prints the traceback of every error."""
REPORT = f"Set {DEBUG}=1 for the traceback. If the message does not help, report it as a bug."
PACKAGE = Path(__file__).parents[1]

_FULL = ("no disk space left.", "Free some space and run the same command again.")
_PERMISSIONS = "Change its permissions, or choose a writable folder (downloads are stored in HF_HOME)."
_OPEN_FILES = ("too many open files.", "Raise the limit (ulimit -n 4096), or use fewer --jobs.")
_MEMORY = "Use a smaller batch size, fewer --jobs, or a device with more memory."
_DISK = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: ("cannot be read or written: permission denied.", _PERMISSIONS),
    errno.EPERM: ("cannot be read or written: not permitted.", _PERMISSIONS),
    errno.EROFS: ("cannot be written: the file system is read-only.", _PERMISSIONS),
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.ENOMEM: ("out of memory.", _MEMORY),
    errno.EIO: ("the disk reports an input/output error.", "Check the disk and its cable or network."),
}
"""Number of an OSError -> problem and hint."""
_PASSED_ON = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
"""Numbers that also count if a library raised its own error after them."""
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded|\(os error (?:28|122)\)", re.IGNORECASE)
_NO_MEMORY = re.compile(
    r"out of memory|(?:can't|cannot) allocate memory|not enough memory|STATUS_ALLOC_FAILED", re.IGNORECASE
)
_NETWORK = (
    "ConnectionError", "ConnectError", "ConnectTimeout", "ReadTimeout", "ProxyError", "SSLError",
    "LocalEntryNotFoundError", "OfflineModeIsEnabled",
)  # fmt: skip
"""Names of the errors of download libraries."""


def debugging() -> bool:
    """Whether tracebacks are requested."""
    return os.environ.get(DEBUG) == "1"


def explained(error: BaseException, *, where: str | None = None, hint: str = REPORT) -> MoextendError:
    """An error as a MoextendError; such errors are returned unchanged.

    Args:
        where: the command or the run; the file of an OSError is added.
        hint: used if the kind of the error has no hint.
    """
    if isinstance(error, MoextendError):
        return error
    what, hint = _known(error) or (f"{_named(error)}{_place(error)}.", hint)
    file = _file(error)
    kind = InputError if isinstance(error, IsADirectoryError | NotADirectoryError) else RunFailed
    return kind(what, where=": ".join(filter(None, (where, file))) or None, hint=hint)


def is_known(error: Exception) -> bool:
    """Whether an error is of a kind with its own hint: of memory, the disk, the network or a missing package."""
    return isinstance(error, MoextendError) or _known(error) is not None


def of_disk(error: OSError, path: Path) -> MoextendError | None:
    """MoextendError for a full disk, missing permissions and the like, at `path`; None for other errors."""
    known = _DISK.get(error.errno or 0)
    return RunFailed(known[0], where=str(path), hint=known[1]) if known else None


def _known(error: BaseException) -> tuple[str, str] | None:
    """Problem and hint for known kinds of errors."""
    for cause in causes(error):
        number = (cause.errno or 0) if isinstance(cause, OSError) else 0
        if number in (_DISK if cause is error else _PASSED_ON):
            return _DISK[number]
    text = _message(error)
    if _NO_SPACE.search(text):
        return _FULL
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        return f"out of memory{f' ({text})' if text else ''}.", _MEMORY
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package '{error.name}' is not installed.", "Install it, e.g. with pip."
    if isinstance(error, OSError) and error.errno and error.filename is not None:
        return f"{error.strerror or _named(error)}.", "Check the path."
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__name__ in _NETWORK:
        return f"{_named(error)}.", "Check the network; files that are already downloaded do not need it."
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _file(error: BaseException) -> str | None:
    """The file of an OSError."""
    name = error.filename if isinstance(error, OSError) else None
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None


def _named(error: BaseException) -> str:
    """Kind and message of an error, or else the line of code that raised it."""
    text = _message(error)
    if not text:
        last = _frames(error)[-1:]
        text = f"no message, at `{last[0].line}`" if last and last[0].line else "no message"
    return f"{type(error).__name__}: {text.rstrip('.')}"


def _message(error: BaseException) -> str:
    """Message in one line; "" if there is none."""
    try:
        return " ".join(str(error).split())
    except Exception:  # __str__ is the library's own
        return ""


def _place(error: BaseException) -> str:
    """File and line, in brackets, of the innermost frame of this package, else of the innermost frame."""
    frames = _frames(error)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    for frame in reversed(own or frames):
        path = Path(frame.filename)
        return f" ({path.relative_to(PACKAGE.parent) if own else path.name}:{frame.lineno})"
    return ""


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)
