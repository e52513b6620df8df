"""References to images, which are opened when needed and named by their content."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.data import pictures
from moextend.data.pictures import BYTES
from moextend.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = "<image>"
"""Placeholder of an image in a text."""


@dataclass(frozen=True)
class ImageRef:
    """An encoded image (PNG, JPEG, ...) in memory or in a file; `open` decodes it."""

    data: bytes | None = None
    path: Path | None = None
    where: str = ""
    """Its source (file, row), for error messages."""
    folders: tuple[Path, ...] | None = field(default=None, compare=False)
    """Folders that may contain the file, after symbolic links are resolved; None: any folder."""

    def read(self) -> bytes:
        """The encoded bytes. Raises InputError if the file is missing or must not be read."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise InputError("holds no image.", where=self.where, hint="Remove the row or add its image.")
        file = self.file()
        try:
            # The opened file is checked again: the path may have changed. Opening a pipe must not wait for a writer.
            handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(handle, "rb") as opened:
                self._check(os.fstat(opened.fileno()))
                return opened.read(BYTES + 1)
        except OSError as error:
            raise self._unreadable(error.strerror) from error

    def file(self) -> Path:
        """The image's file, with links resolved.

        Raises InputError if it is missing, not a regular file, too large or outside the allowed folders.
        """
        assert self.path is not None, "only of an image in a file"
        try:
            file = Path(os.path.realpath(self.path))
            if self.folders is not None and not any(
                file.is_relative_to(os.path.realpath(folder)) for folder in self.folders
            ):
                raise self._error(
                    "the image lies outside the folder of the data.",
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

    def open(self) -> Image:
        """The decoded RGB image (see pictures.decode). Raises InputError if it is broken."""
        return pictures.decode(self.read(), where=self.where or str(self.path or "image"))

    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the image that `open` returns, read from the header."""
        return pictures.size(self.read(), where=self.where or str(self.path or "image"))

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._error("the image is not a regular file.", "Name an image file.")
        if found.st_size > BYTES:
            raise self._error(
                f"the image has {found.st_size:,} bytes, more than {BYTES:,}.", "Save it smaller."
            )

    def _unreadable(self, why: str | None) -> InputError:
        return self._error(
            f"the image cannot be read ({why}).",
            "Check the path; relative paths start from the folder of the data.",
        )

    def _error(self, what: str, hint: str) -> InputError:
        return InputError(what, where=f"{self.where}: {self.path}".removeprefix(": "), hint=hint)
