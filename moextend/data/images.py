"""Images as media of a prompt, and the decoding of their files; no other module decodes image files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from moextend.data.media import MediaRef
from moextend.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_NAMES = "PNG, JPEG, WebP, GIF, BMP or TIFF"
BYTES = 1 << 28
"""Maximum number of bytes of one encoded image."""
PIXELS = 89_478_485
"""Maximum number of pixels of one image: 256 MiB as RGB. Pillow warns above the same limit."""
_ORIENTATION = 0x0112
_TURNED = (
    "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90",
)  # fmt: skip
"""Pillow's names of what undoes the EXIF orientations from 2 to 8."""
_REDUCE = "Reduce the size of the image."
_REPLACE = "Replace or convert the image, or remove the row."
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes with more than eight bits; all have one channel."""


MARK = "<image>"
"""Placeholder of an image in a text."""


def decode(data: bytes, *, where: str) -> Image:
    """The first frame as 8-bit RGB: 16-bit and float grey scaled, transparency over white, EXIF orientation applied.

    Raises:
        InputError: not one of `FORMATS`, more than `BYTES` or `PIXELS`, or broken.
    """
    from PIL.Image import Transpose

    with _opened(data, where) as image:
        image.load()
        # Not by ImageOps.exif_transpose, which writes all metadata again, and fails at broken ones.
        turn = _orientation(image)
        return _rgb(image if turn == 1 else image.transpose(Transpose[_TURNED[turn - 2]]))


def size(data: bytes, *, where: str) -> tuple[int, int]:
    """Width and height of the image that `decode` returns, read from the header. Raises the errors of `decode`."""
    with _opened(data, where) as image:
        width, height = image.size
        # Pillow rotates a TIFF itself; its size is that of the rotated image.
        turned = image.format != "TIFF" and _orientation(image) >= 5
        return (height, width) if turned else (width, height)


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    if len(data) > BYTES:
        raise _error(f"has more than {BYTES:,} bytes", where, _REDUCE)
    try:
        # Readers warn about metadata, which is not used, and about the size, which is checked here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > PIXELS:
                    raise _error(f"has {width:,} x {height:,} pixels, more than {PIXELS:,}", where, _REDUCE)
                yield image
    except InputError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        bomb = isinstance(error, Image.DecompressionBombError)
        what = f"has more than {PIXELS:,} pixels" if bomb else f"is broken, or not {_NAMES}"
        raise _error(what, where, _REDUCE if bomb else _REPLACE) from error
    except Exception as error:  # readers raise many types of errors for broken data
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:140].rstrip(": ")
        raise _error(f"is broken ({reason})", where) from error


def _error(what: str, where: str, hint: str = _REPLACE) -> InputError:
    return InputError(f"the image {what}.", where=where, hint=hint)


def _orientation(image: Image) -> int:
    """EXIF orientation, 1 to 8; 1 if it is missing or cannot be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken metadata, intact pixels
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode in _DEEP:
        return _eight_bit(image).convert("RGB")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def _eight_bit(image: Image) -> Image:
    """Grey of 16 bits (0 to 65535) or floats (0 to 1, else 0 to 255) as 8 bits; other ranges are stretched."""
    from PIL import Image

    values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    tops = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    low, scale = (0.0, 255.0 / top) if top else (low, 255.0 / max(high - low, 1e-30))
    return Image.fromarray(((values - low) * scale).round().astype(np.uint8))


@dataclass(frozen=True)
class ImageRef(MediaRef):
    """An encoded image (PNG, JPEG, ...) in memory or in a file; `open` decodes it."""

    modality: ClassVar[str] = "image"
    noun: ClassVar[str] = "the image"
    most: ClassVar[int] = BYTES

    def open(self) -> Image:
        """The decoded RGB image (see decode). Raises InputError if it is broken."""
        return decode(self.read(), where=self.place)

    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the image that `open` returns, read from the header."""
        return size(self.read(), where=self.place)
