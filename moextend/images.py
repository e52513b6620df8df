"""Images by reference: opened when needed, named by their content."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ImageRef:
    """An encoded image (PNG, JPEG, ...) in memory or in a file; nothing is decoded until `open`."""

    data: bytes | None = None
    path: Path | None = None
    where: str = ""
    """Where it comes from (file, row), for error messages."""

    def read(self) -> bytes:
        """The encoded bytes; InputError where the file is missing."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise InputError("holds no image.", where=self.where, mend="Remove the row or add its image.")
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(
                f"the image cannot be read ({error.strerror}).",
                where=f"{self.where}: {self.path}".lstrip(": "),
                mend="Check the path; relative paths start from the folder of the data.",
            ) from error

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that name the content."""
        return hashlib.sha256(self.read()).hexdigest()[:16]

    def open(self) -> Image:
        """The decoded RGB image; InputError where it is broken."""
        from PIL import Image, UnidentifiedImageError

        try:
            return Image.open(io.BytesIO(self.read())).convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise InputError(
                f"the image is broken ({type(error).__name__}: {error}).",
                where=self.where or str(self.path),
                mend="Replace the image or remove the row.",
            ) from error
