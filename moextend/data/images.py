"""Images as media of a prompt, and the decoding of their files; no other module decodes image files."""

from __future__ import annotations

import ctypes
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from moextend.data.media import MediaRef
from moextend.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image


FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_NAMES = "PNG, JPEG, WebP, GIF, BMP or TIFF"
BYTES = 1 << 28
"""Maximum number of bytes of one encoded image."""
PIXELS = 89_478_485
"""Maximum number of pixels of one image: 256 MiB as RGB. Pillow warns above the same limit."""
_BAND = 1 << 20
"""Number of pixels with more than eight bits that are converted at a time."""
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
    with _opened(data, where) as image:
        image.load()
        return _rgb(_upright(image))


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
    _silence_readers()
    try:
        # Readers warn about metadata, which is not used, and about the size, which is checked here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image, where)
                _check_complete(image, where)
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


@cache
def _silence_readers() -> None:
    """Stops Pillow's readers and their libtiff from writing to standard error; failures raise exceptions anyway.

    Has no effect on libtiff if its functions are not accessible.
    """
    from PIL import _imaging

    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)  # the lookup includes its dependencies
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = library[name]
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


def _check_size(image: Image, where: str) -> None:
    width, height = image.size
    if width * height > PIXELS:
        raise _error(f"has {width:,} x {height:,} pixels, more than {PIXELS:,}", where, _REDUCE)
    if not width * height:
        raise _error("has no pixels", where)


def _check_complete(image: Image, where: str) -> None:
    """Raises InputError if the strips of a TIFF do not reach its last row: Pillow would leave the rest black."""
    boxes = [tile[1] for tile in getattr(image, "tile", [])]
    if image.format != "TIFF" or not boxes:
        return
    # Pillow gives the size of the rotated image.
    rows = image.width if _orientation(image) >= 5 else image.height
    if max(box[3] for box in boxes) < rows:
        raise _error("is broken (its last rows are missing)", where)


def _orientation(image: Image) -> int:
    """EXIF orientation, 1 to 8; 1 if it is missing or cannot be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken metadata, intact pixels
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(image: Image) -> Image:
    from PIL.Image import Transpose

    orientation = _orientation(image)
    return image if orientation == 1 else image.transpose(Transpose[_TURNED[orientation - 2]])


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
    import numpy as np
    from PIL import Image

    ends = [(float(band.min()), float(band.max())) for _, band in _bands(image)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    tops = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    low, scale = (0.0, 255.0 / top) if top else (low, 255.0 / max(high - low, 1e-300))
    shallow = np.empty((image.height, image.width), np.uint8)
    for start, band in _bands(image):
        shallow[start : start + len(band)] = ((band - low) * scale).round()
    return Image.fromarray(shallow)


def _bands(image: Image) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Blocks of rows: the first row, and the pixels as finite doubles. All rows at once would need too much memory."""
    import numpy as np

    rows = max(1, _BAND // image.width)
    for start in range(0, image.height, rows):
        band = image.crop((0, start, image.width, min(start + rows, image.height)))
        yield start, np.nan_to_num(np.asarray(band).astype(np.float64), posinf=0.0, neginf=0.0)


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
