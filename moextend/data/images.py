"""Images as media of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from moextend.data import pictures
from moextend.data.media import MediaRef

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = "<image>"
"""Placeholder of an image in a text."""


@dataclass(frozen=True)
class ImageRef(MediaRef):
    """An encoded image (PNG, JPEG, ...) in memory or in a file; `open` decodes it."""

    modality: ClassVar[str] = "image"
    noun: ClassVar[str] = "the image"
    most: ClassVar[int] = pictures.BYTES

    def open(self) -> Image:
        """The decoded RGB image (see pictures.decode). Raises InputError if it is broken."""
        return pictures.decode(self.read(), where=self.place)

    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the image that `open` returns, read from the header."""
        return pictures.size(self.read(), where=self.place)
