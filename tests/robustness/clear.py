"""Definition of a clear error, and snapshots of folders."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from pydantic import ValidationError

from moextend.errors import MoextendError

LONGEST = 8000
"""Characters of a message: a list of names may be long, a value that was read may not."""
_UNCLEAR = re.compile(
    r"Traceback|^\w*(?:Error|Exception):?\s*$|object at 0x|NoneType|has no attribute|<class '|\bKeyError\b"
    r"|unhashable type|not subscriptable|list index out of range|\[Errno|not JSON serializable|not iterable"
)
"""What is Python's or a library's word about its own objects, and no word about the user's input."""


def shown(error: BaseException) -> str:
    """What is wrong with an error's message; empty where nothing is."""
    text = str(error)
    if isinstance(error, MoextendError):
        if not error.where and not error.hint:
            return f"neither place nor hint: {text}"
        if not error.what.strip(" ."):
            return f"it does not say what is wrong: {text}"
    if not isinstance(error, (MoextendError, ValidationError)) and type(error) not in (TypeError, ValueError):
        return f"{type(error).__name__}: {text}"
    return unclear(text)


def unclear(text: str) -> str:
    """What is wrong with a text that is shown to a user; empty where nothing is."""
    if len(text.strip()) < 12:
        return f"too short: {text!r}"
    if len(text) > LONGEST:
        return f"{len(text)} characters: {text[:200]!r}"
    if found := _UNCLEAR.search(text):
        return f"unclear at {found[0]!r}: {text}"
    if any((ord(letter) < 32 and letter not in "\n\t") or ord(letter) == 127 for letter in text):
        return f"control characters: {text!r}"
    return ""


def tree(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """What lies below a folder: kind and digest of each entry, by path. `but` are names of folders left out."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in but]
        for name in (*folders, *names):
            path = Path(place) / name
            mode = path.lstat().st_mode
            kind = stat.filemode(mode)[0]
            content = ""
            if stat.S_ISREG(mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(mode):
                content = str(path.readlink())
            found[str(path.relative_to(folder))] = kind + content
    return found
