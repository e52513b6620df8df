"""References to media (images, sounds, ...), which are opened when needed and named by their content."""

from __future__ import annotations

import hashlib
import os
import stat
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from moextend.errors import InputError


@dataclass(frozen=True)
class MediaRef(ABC):
    """An encoded medium in memory or in a file; `open` decodes it. One subclass per modality."""

    modality: ClassVar[str]
    """Name of its modality ("image"); a prompt has `<image>` at its place."""
    noun: ClassVar[str]
    """Its name in error messages ("the image")."""
    most: ClassVar[int] = 1 << 28
    """Maximum number of bytes of one encoded medium."""

    data: bytes | None = None
    path: Path | None = None
    where: str = ""
    """Its source (file, row), for error messages."""
    folders: tuple[Path, ...] | None = field(default=None, compare=False)
    """Folders that may contain the file, after symbolic links are resolved; None: any folder."""

    @classmethod
    def one(cls) -> str:
        """One of them in a sentence: "an image", "a sound"."""
        noun = cls.noun.removeprefix("the ")
        return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"

    @abstractmethod
    def open(self) -> Any:
        """The decoded medium, as encoders of its modality take it. Raises InputError if it is broken."""

    def read(self) -> bytes:
        """The encoded bytes. Raises InputError if the file is missing or must not be read."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise InputError(
                f"holds no {self.modality}.",
                where=self.where,
                hint=f"Remove the row or add its {self.modality}.",
            )
        file = self.file()
        try:
            # The opened file is checked again: the path may have changed. Opening a pipe must not wait for a writer.
            handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(handle, "rb") as opened:
                self._check(os.fstat(opened.fileno()))
                return opened.read(self.most + 1)
        except OSError as error:
            raise self._unreadable(error.strerror) from error

    def file(self) -> Path:
        """The medium's file, with links resolved.

        Raises InputError if it is missing, not a regular file, too large or outside the allowed folders.
        """
        assert self.path is not None, "only of a medium in a file"
        try:
            file = Path(os.path.realpath(self.path))
            if self.folders is not None and not any(
                file.is_relative_to(os.path.realpath(folder)) for folder in self.folders
            ):
                raise self._error(
                    f"{self.noun} lies outside the folder of the data.",
                    "Move it there, or set data.images of the task (--images of a command) to a folder that holds it.",
                )
            self._check(file.stat())
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        except ValueError as error:  # a null character
            raise self._unreadable(str(error)) from error
        return file

    @cached_property
    def digest(self) -> str:
        """Digest of the content: sixteen hex digits."""
        return hashlib.sha256(self.read()).hexdigest()[:16]

    @property
    def place(self) -> str:
        """Its source for error messages: the row and the file, else its modality."""
        return ": ".join(str(part) for part in (self.where, self.path) if part) or self.modality

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._error(f"{self.noun} is not a regular file.", f"Name an {self.modality} file.")
        if found.st_size > self.most:
            raise self._error(
                f"{self.noun} has {found.st_size:,} bytes, more than {self.most:,}.", "Reduce its size."
            )

    def _unreadable(self, why: str | None) -> InputError:
        return self._error(
            f"{self.noun} cannot be read ({why}).",
            "Check the path; relative paths start from the folder of the data.",
        )

    def _error(self, what: str, hint: str) -> InputError:
        return InputError(what, where=self.place, hint=hint)
