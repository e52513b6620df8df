"""The papers of methods, data sets and base models: .bib files in this folder, of which only what is used is written.

An entry's field `usedby` names what it belongs to; see bench/methods/references.bib, tasks/references.bib and
registry/references.bib. An @comment names what has no paper. Files of this name in the same folders of a
workspace go first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from moextend.bench import methods
from moextend.errors import SpecError
from moextend.util import content, files

FILE = "references.bib"
_HEAD = re.compile(r"@(\w+)\s*\{\s*([^\s,{}]+)\s*,")
_USED = re.compile(r"^\s*usedby\s*=\s*\{([^{}]*)\}\s*,?\s*\n", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One entry of a .bib file."""

    key: str
    used_by: tuple[str, ...]
    """Names, in which "*" stands for any text."""
    text: str
    """The entry as it is written, without `usedby`; "" for what has no paper."""

    def belongs_to(self, name: str) -> bool:
        """Whether it is a reference of a method, task or model."""
        return any(fnmatchcase(name, pattern) for pattern in self.used_by)


class Bibliography:
    """The entries that are known, and those that were cited."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = list(entries)
        self._cited: dict[str, Entry] = {}
        self.unknown: list[str] = []
        """Names that were asked for and have no entry."""

    def cite(self, *names: str) -> str:
        """~\\cite{...} of all entries of the names; "" where there is none, and then they are `unknown`."""
        found: dict[str, Entry] = {}
        for name in names:
            own = [entry for entry in self._entries if entry.belongs_to(name)]
            found |= {entry.key: entry for entry in own if entry.text}
            if not own and name not in self.unknown:
                self.unknown.append(name)
        self._cited |= {key: entry for key, entry in found.items() if key not in self._cited}
        return f"~\\cite{{{','.join(found)}}}" if found else ""

    def knows(self, name: str) -> bool:
        """Whether there is an entry of the name."""
        return any(entry.belongs_to(name) for entry in self._entries)

    @property
    def text(self) -> str:
        """The cited entries, by key."""
        return "\n\n".join(self._cited[key].text for key in sorted(self._cited)) + "\n"


def find_entries(workspace: Path) -> list[Entry]:
    """All entries of the workspace and of the package; of two with one key the first."""
    folders = [
        workspace / "methods", Path(methods.__file__).parent, workspace / "tasks", content.package_folder("tasks"),
        workspace / "registry", content.package_folder("registry"),
    ]  # fmt: skip
    found: list[Entry] = []
    for folder in folders:
        found += read_bib(folder / FILE) if files.exists(folder / FILE) else []
    return found


def read_bib(path: Path) -> list[Entry]:
    """The entries of a .bib file; SpecError if the braces of one do not close, or its text is not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError("is not UTF-8 text.", where=str(path), hint="Save it as UTF-8.") from error
    found = []
    for head in _HEAD.finditer(text):
        entry = text[head.start() : _end(text, head.start(), head[2], path)]
        used = _USED.search(entry)
        names = tuple(name.strip() for name in used[1].split(",")) if used else ()
        found.append(Entry(head[2], names, "" if head[1].lower() == "comment" else _USED.sub("", entry)))
    return found


def _end(text: str, start: int, key: str, path: Path) -> int:
    """Where the braces of the entry that begins at `start` close."""
    depth = 0
    for place in range(text.index("{", start), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    raise SpecError(f"the braces of '{key}' are not closed.", where=str(path), hint="Add a '}'.")
