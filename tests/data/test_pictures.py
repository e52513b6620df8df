"""Decoding of images; every damaged file gives exactly one type of error."""

from __future__ import annotations

import io
import os
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from moextend.data import images
from moextend.data.images import ImageRef
from moextend.errors import InputError

RGB = Image.frombytes("RGB", (24, 16), random.Random(0).randbytes(24 * 16 * 3))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    image = ImageRef(data=data, where="row 1").open()
    assert image.mode == "RGB" and image.size == ImageRef(data=data).size()
    return np.asarray(image)


@pytest.mark.parametrize("kind", images.FORMATS)
def test_eight_bit_images_decode_as_pillow_converts_them(kind: str) -> None:
    for mode in ("RGB", "L", "1", "P") if kind != "JPEG" else ("RGB", "L", "CMYK"):
        data = encoded(RGB.convert(mode), kind)
        with Image.open(io.BytesIO(data)) as image:
            assert (decoded(data) == np.asarray(image.convert("RGB"))).all(), mode


def test_sixteen_bits_are_scaled() -> None:
    grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    wanted = np.arange(256).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        found = decoded(encoded(Image.fromarray(grey), kind))
        assert (found == wanted[..., None]).all(), kind
    big = Image.frombytes("I;16B", (16, 16), grey.astype(">u2").tobytes())
    assert (decoded(encoded(big, "TIFF")) == wanted[..., None]).all()


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 255.0], [0, 100, 255]), ([-10.0, 0.0, 10.0], [0, 128, 255]),
     ([float("nan"), 0.0, 1.0], [0, 0, 255]), ([-5.0, -5.0, -5.0], [0, 0, 0])],
)  # fmt: skip
def test_floats_are_scaled(values: list[float], wanted: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert decoded(data)[0, :, 0].tolist() == wanted


def test_transparent_is_white() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.putpixel((1, 1), (200, 10, 20, 255))
    clear.putpixel((2, 2), (0, 0, 0, 128))
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        found = decoded(encoded(clear, kind, **options))
        assert found[0, 0].tolist() == [255, 255, 255], kind
        assert found[1, 1].tolist() == [200, 10, 20], kind
        assert found[2, 2].tolist() == [127, 127, 127], kind
    assert decoded(encoded(clear, "GIF"))[0, 0].tolist() == [255, 255, 255]
    assert decoded(encoded(clear.quantize(4), "PNG"))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_the_orientation_of_the_camera_is_followed(kind: str) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(RGB, kind, exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            wanted = np.asarray(ImageOps.exif_transpose(image))
        assert (decoded(data) == wanted).all()
        assert wanted.shape[:2] == ((24, 16) if orientation >= 5 else (16, 24))


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PDF", "TGA", "SVG", "empty"])
def test_only_formats_of_the_list_are_read(kind: str) -> None:
    data = {"SVG": b"<svg/>", "empty": b""}.get(kind) if kind in ("SVG", "empty") else encoded(RGB, kind)
    with pytest.raises(
        InputError, match=r"^row 3: the image is broken, or not PNG, JPEG.* remove the row\.$"
    ):
        ImageRef(data=data, where="row 3").open()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels."""
    from zlib import compress, crc32

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("sides", [(10_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(sides: tuple[int, int]) -> None:
    for look in (ImageRef.open, ImageRef.size):
        with pytest.raises(
            InputError, match=r"^row 1: the image has .* pixels.*Reduce the size of the image\.$"
        ):
            look(ImageRef(data=bomb(*sides), where="row 1"))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(
            InputError, match=r"row 1: .*the image is not a regular file\. Name an image file"
        ):
            ImageRef(path=path, where="row 1").open()
    for name in ("a\0b.png", "x" * 5000, "loop.png"):
        (tmp_path / "loop.png").unlink(missing_ok=True)
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
        with pytest.raises(InputError, match=r"row 1: .*the image cannot be read"):
            ImageRef(path=tmp_path / name, where="row 1").open()


def test_too_many_bytes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(images.BYTES + 1)  # sparse
    with pytest.raises(
        InputError, match=r"large\.png: the image has 268,435,457 bytes, more than 268,435,456"
    ):
        ImageRef(path=tmp_path / "large.png").open()
    monkeypatch.setattr(images, "BYTES", 10)
    with pytest.raises(InputError, match="more than 10 bytes"):
        ImageRef(data=encoded(RGB, "PNG")).open()


def test_files_outside_the_folders_are_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "data", tmp_path / "secret.png"
    inside.mkdir()
    outside.write_bytes(encoded(RGB, "PNG"))
    (inside / "own.png").write_bytes(encoded(RGB, "PNG"))
    (inside / "link.png").symlink_to(outside)
    (inside / "near.png").symlink_to("own.png")
    (tmp_path / "alias").symlink_to(inside)
    for path in (inside / "own.png", inside / "near.png", tmp_path / "alias" / "own.png"):
        assert ImageRef(path=path, folders=(inside,)).open().size == (24, 16)
        assert ImageRef(path=path, folders=(tmp_path / "none", tmp_path / "alias")).open()
    for path in (outside, inside / ".." / "secret.png", inside / "link.png", inside / ".." / "nothing.png"):
        with pytest.raises(
            InputError, match=r"row 1: .*lies outside the folder of the data\. .*data\.images"
        ):
            ImageRef(path=path, where="row 1", folders=(inside,)).read()
        assert path == inside / ".." / "nothing.png" or ImageRef(path=path).read()
