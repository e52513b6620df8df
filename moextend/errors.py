"""The error tree.

MoextendError
 ├── InputError      the user's input is wrong; exit code 2
 │    ├── UnknownName    a name that no table or folder knows
 │    ├── SpecError      a YAML (or other file of the user's) that cannot be read as what it should be
 │    └── RunConflict    a run folder of another config, or whose data or plug-ins changed
 │         └── RunBusy        another process is working on the run
 └── RunFailed       a run began and could not end; exit code 1
      └── LeaseLost      another process may have taken over what this one works on

Every error says what is wrong, where, and how to fix it. The CLI prints it without a traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_LONGEST = 600
"""Maximum length of the problem and of its place in characters; a hint may be ten times as long."""
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, characters that change the direction of a line, and surrogates."""
_LOGIN = re.compile(r"(?<=://)[^/\s]+(?=@)")
"""User and password in an address."""


def visible(text: str) -> str:
    """The text with escaped control characters ("\\x1b"), which cannot control a terminal."""
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def masked(text: str) -> str:
    """The text without users and passwords in addresses ("https://***@host")."""
    return _LOGIN.sub("***", text)


def short(text: str, limit: int) -> str:
    """The text, without its middle if it is longer than `limit`: values in files may have megabytes."""
    if len(text) <= limit:
        return text
    half = (limit - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def last_line(output: bytes, limit: int = 200) -> str:
    """The last line of output, at most `limit` characters; not a progress bar, which is drawn over itself."""
    lines = (line.strip() for line in output.decode(errors="replace").split("\n"))
    return short(next(reversed([line for line in lines if line and "\r" not in line]), ""), limit)


def _shown(text: str, limit: int) -> str:
    return visible(short(masked(text), limit))


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 run", "1,200 runs"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float | None) -> str:
    """A duration as text: 42s, 3m 05s, 2h 10m; "-" if unknown."""
    if seconds is None:
        return "-"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}s"
    if rounded < 3600:
        return f"{rounded // 60}m {rounded % 60:02d}s"
    return f"{rounded // 3600}h {rounded % 3600 // 60:02d}m"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def type_name(value: object) -> str:
    """Name of a value's type for a message: "str", "list", ...; "nothing" for null."""
    return "nothing" if value is None else type(value).__name__


class MoextendError(Exception):
    """An error with a place and a hint, printed as ``where: what hint``, with long texts shortened."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = _shown(what, _LONGEST)
        self.where = None if where is None else _shown(where, _LONGEST)
        self.hint = None if hint is None else _shown(hint, 10 * _LONGEST)
        super().__init__(self.what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{place}{self.what}{hint}"


class InputError(MoextendError):
    """The user's input is wrong; nothing was started."""

    exit_code = 2


_LISTED = 200
"""Maximum number of names in an error; of more names only the nearest are listed."""
_FEW = 20
"""The same where a command lists all names."""
_LISTS = {
    **dict.fromkeys(
        (
            "task",
            "sequence",
            "task or sequence",
            "task or kind",
            "method",
            "scorer",
            "name or description with",
        ),
        "moextend bench list",
    ),
    **dict.fromkeys(("run", "method or run"), "moextend bench status"),
}
"""Kind -> the command that lists all names."""


class UnknownName(InputError):
    """An unknown name; the hint has the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> None:
        known, name = sorted(set(known)), short(str(name), 100)
        plain = {one.partition(":")[0]: one for one in reversed(known)}  # methods without their settings
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        near = near or [plain[one] for one in difflib.get_close_matches(name.lower(), plain, n=1, cutoff=0.5)]
        meant = [f"Did you mean '{near[0]}'?"] if near else []
        lists = _LISTS.get(kind)
        if len(known) <= (_FEW if lists else _LISTED):
            others = [f"Available: {', '.join(known) or 'none'}."]
        elif near:
            others = [f"Similar names: {', '.join(near[1:])}."] if near[1:] else []
        else:
            others = ["Check the spelling."]
        if lists and len(known) > _FEW:
            others.append(f"All {len(known)}: {lists}.")
        hint = " ".join(meant + others)
        super().__init__(f"no {kind} '{name}'.", where=where, hint=hint)


class SpecError(InputError):
    """A file of the user has invalid content."""


class RunConflict(InputError):
    """A run folder belongs to another config, or the data or plug-ins of its run changed."""


class RunBusy(RunConflict):
    """Another process is working on the run."""


class RunFailed(MoextendError):
    """A run started and failed; its results so far are kept."""


class LeaseLost(RunFailed):
    """This process may no longer write: another one may have taken over its run or file."""


@contextmanager
def at(where: str) -> Iterator[None]:
    """Context that sets the place of errors inside it to the option or key `where`."""
    try:
        yield
    except InputError as error:
        place = "" if error.where is None or error.where in where else f"{error.where}: "
        raise InputError(f"{place}{error.what}", where=where, hint=error.hint) from error
