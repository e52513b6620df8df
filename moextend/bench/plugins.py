"""Plug-ins for methods and scorers: files of a workspace, and entry points of installed packages.

A file `FOLDER/my_name.py` of the workspace, or an entry point `my-name`, adds the plug-in `my-name`. The name is known
without an import, so a plug-in is imported only when it is used or listed. Files of the same folder whose names begin
with `_` hold what plug-ins share (`from ._shared import helper`). Its digest covers all files of the folder
that are no plug-ins. The code of a workspace belongs to its user and runs like any other Python file.
"""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.machinery import FileFinder, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from moextend.errors import InputError, UnknownName, listed
from moextend.util import files, lookup

T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
"""Pattern of names of plug-ins, which become part of folder names."""


@dataclass(frozen=True)
class Source:
    """Origin of a method or scorer."""

    origin: str
    """"package", "workspace", or the distribution of an entry point with its version."""
    place: str = ""
    """The file, relative to the workspace, or the object of the entry point."""
    sha256: str = ""
    """Digest of the file, and of all files of its folder that plug-ins share; "" for the package's own."""

    def record(self) -> dict[str, str]:
        """Record for a run."""
        return {"from": self.origin, "place": self.place, "sha256": self.sha256}


PACKAGE = Source("package")
WORKSPACE = "workspace"
"""Origin of plug-ins in files of a workspace."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """The object of a name, with its origin."""

    name: str
    value: T
    source: Source


@dataclass(frozen=True)
class Listed(Generic[T]):
    """One entry of a list: an object, or why it cannot be used."""

    name: str
    origin: str
    place: str
    found: Found[T] | None = None
    problem: InputError | None = None


@dataclass(frozen=True)
class Candidate:
    """A plug-in that is not imported yet."""

    name: str
    origin: str
    place: str
    where: str
    """Its place for error messages."""
    load: Callable[[], tuple[Any, str]]
    """Imports it; returns the module or object, and the digest of its file."""


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """The plug-ins of one kind (methods or scorers), with the package's own."""

    noun: str
    folder: str
    """Folder in the workspace."""
    group: str
    """Group of entry points."""
    own: Callable[[], Mapping[str, Callable[[], T]]]
    """Name -> loader, for the package's own."""
    take: Callable[[Any, str], T]
    """(imported module or object of an entry point, name) -> the object of that name; ValueError if there is none."""
    reserved: tuple[str, ...] = ()
    """Reserved names."""

    @property
    def _a_noun(self) -> str:
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    def names(self, workspace: Path | None) -> list[str]:
        """All names. Imports nothing."""
        own = self.own()
        added = [each.name for each in self._candidates(workspace) if self._wrong_name(each) is None]
        return list(dict.fromkeys([*own, *added]))

    def find(self, name: str, workspace: Path | None, *, where: str | None = None) -> Found[T]:
        """The object of `name`; imports no other plug-in.

        Raises:
            UnknownName: the name is unknown.  InputError: the plug-in is broken, or two have this name.
        """
        own = self.own()
        if name in own:
            return Found(name, own[name](), PACKAGE)
        same = [each for each in self._candidates(workspace) if each.name == name]
        if not same:
            raise UnknownName(self.noun, name, self.names(workspace), where=where)
        if problem := self._wrong_name(same[0]) or self._twice(same):
            raise problem
        return self._load(same[0])

    def hidden(self, workspace: Path | None) -> dict[str, InputError]:
        """Name of the package's own -> error of a plug-in with the same name, which is left out. Imports nothing."""
        found = self._candidates(workspace)
        return {each.name: problem for each in found if (problem := self._wrong_name(each))}

    def listed(self, workspace: Path | None) -> list[Listed[T]]:
        """All entries, the package's own first; imports all plug-ins, and lists broken ones with their errors."""
        found = [
            Listed(name, PACKAGE.origin, "", Found(name, load(), PACKAGE))
            for name, load in self.own().items()
        ]
        candidates = list(self._candidates(workspace))
        for each in candidates:
            same = [other for other in candidates if other.name == each.name]
            problem, usable = self._wrong_name(each) or self._twice(same), None
            try:
                usable = None if problem else self._load(each)
            except InputError as error:
                problem = error
            found.append(Listed(each.name, each.origin, each.place, usable, problem))
        return found

    def _load(self, each: Candidate) -> Found[T]:
        try:
            value, digest = each.load()
        except (Exception, SystemExit) as error:  # whatever somebody's code raises costs this plug-in alone
            raise _broken(error, each.where) from error
        try:
            return Found(each.name, self.take(value, each.name), Source(each.origin, each.place, digest))
        except ValueError as error:
            hint = f"docs/adding.md says what {self._a_noun} is."
            raise InputError(str(error), where=each.where, hint=hint) from error

    def _wrong_name(self, each: Candidate) -> InputError | None:
        if not NAME.fullmatch(each.name):
            what = f"'{each.name}' is not a name of {self._a_noun}: use letters, digits, '-', '_', '.' and '+' only."
        elif each.name in self.own():
            what = f"'{each.name}' is the name of {self._a_noun} of the package, so this one is left out."
        elif each.name in self.reserved:
            what = f"'{each.name}' stands for something else, so this {self.noun} is left out."
        else:
            return None
        return InputError(what, where=each.where, hint="Rename it.")

    def _twice(self, same: list[Candidate]) -> InputError | None:
        if len(same) < 2:
            return None
        what = f"{len(same)} plug-ins have this name: {listed([each.where for each in same])}."
        return InputError(what, where=f"{self.noun} '{same[0].name}'", hint="Rename or remove all but one.")

    def _candidates(self, workspace: Path | None) -> Iterator[Candidate]:
        paths = sorted((workspace / self.folder).glob("*.py")) if workspace else []
        for path in paths:
            if not path.name.startswith(("_", ".")):
                name, place = _name(path.stem), f"{self.folder}/{path.name}"
                yield Candidate(name, WORKSPACE, place, str(path), partial(_load_file, path))
        points = {(point.name, point.value): point for point in entry_points(group=self.group)}
        for point in points.values():
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else "entry point"
            where = f"{point.name} = {point.value} ({origin})"
            yield Candidate(_name(point.name), origin, point.value, where, partial(_load_point, point))


def code_of(path: Path) -> dict[str, Path]:
    """Path in its folder -> file, of a plug-in in a file and of what plug-ins share there; nothing is imported."""
    beside = {each.relative_to(path.parent).as_posix(): each for each in sorted(path.parent.rglob("*"))}
    shared = {name: each for name, each in beside.items() if _is_shared(Path(name)) and each.is_file()}
    return {path.name: path, **shared}


def code_digest(path: Path) -> str:
    """Digest of the same files: `Source.sha256` of a plug-in in a file."""
    return _digest(path.read_bytes(), _shared(path))


def _shared(path: Path) -> tuple[bytes, ...]:
    """Name and digest of each file that a plug-in shares with others, as a line."""
    others = ((name, each) for name, each in code_of(path).items() if each != path)
    return tuple(f"{name} {files.sha256(each)}\n".encode() for name, each in others)


def _digest(source: bytes, shared: tuple[bytes, ...]) -> str:
    return hashlib.sha256(b"".join([source, *shared])).hexdigest()


def _load_file(path: Path) -> tuple[ModuleType, str]:
    source, path = path.read_bytes(), path.resolve()
    shared = _shared(path)
    return _module(path, source, shared), _digest(source, shared)


def _is_shared(path: Path) -> bool:
    """Whether plug-ins may read a file of their folder: every one that is no plug-in of its own."""
    if any(part.startswith(".") or part == "__pycache__" for part in path.parts):
        return False
    return len(path.parts) > 1 or path.suffix != ".py" or path.name.startswith("_")


def _load_point(point: EntryPoint) -> tuple[Any, str]:
    found, path = point.load(), Path(getattr(sys.modules[point.module], "__file__", None) or "")
    return found, files.sha256(path) if path.is_file() else ""


@cache
def _module(path: Path, source: bytes, shared: tuple[bytes, ...]) -> ModuleType:
    """Module from the bytes of a file, so that no stale compiled file is used; `shared`: digests of what is beside it.

    It belongs to a package of the folder, for relative imports of the shared files.
    """
    package = f"moextend_workspace_{_short(bytes(path.parent), *shared)}"
    if package not in sys.modules:
        folder, place = ModuleType(package), str(path.parent)
        folder.__path__ = [place]
        sys.path_importer_cache[place] = FileFinder(place, (_Uncached, [".py"]))
        sys.modules[package] = folder
    name = f"{package}.{path.stem}_{_short(source)}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__, module.__package__ = str(path), package
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Uncached(SourceFileLoader):
    """Loader that neither reads nor writes compiled files."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Fails, which stands for a source that cannot be compared with a compiled file."""
        raise OSError


def _short(*content: bytes) -> str:
    return hashlib.sha256(b"".join(content)).hexdigest()[:16]


def _name(stem: str) -> str:
    return stem.replace("_", "-")


def _broken(error: BaseException, where: str) -> InputError:
    """Error for a plug-in that cannot be imported, with the line of its own file or of one that it shares."""
    lines = [(Path(each.filename), each.lineno) for each in traceback.extract_tb(error.__traceback__)]
    message: object = error
    if isinstance(error, SyntaxError):
        lines.append((Path(error.filename or ""), error.lineno))
        message = error.msg
    own = Path(where)
    near = [
        f"{own.with_name(file.name)}:{line}"
        for file, line in lines
        if file.name == own.name or (file.name.startswith("_") and file.parent.name == own.parent.name)
    ]
    what = f"cannot be imported ({type(error).__name__}: {' '.join(str(message).split())})."
    return InputError(what, where=(near or [where])[-1], hint="Correct the file.")


def load_later(target: str) -> Callable[[], Any]:
    """Function that loads "module:object"."""
    return lambda: lookup.load(target)
