"""Mutated image files through the image opener, in a separate process: `fuzzing.py FIRST COUNT` prints problems.

Image number i is the same whoever asks for it. An image is either decoded or refused by an InputError; anything else is
printed as a JSON line: another exception, an answer after SECONDS, more than MEGABYTES of memory.
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import struct
import sys
import time
import zlib
from collections.abc import Callable

from PIL import Image, ImageDraw, PngImagePlugin

from moextend.data.images import decode, size
from moextend.errors import InputError

SECONDS = 10
MEGABYTES = 500
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 9459, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """Whole images: every format, most modes and compressions, metadata, several frames."""
    base = Image.new("RGB", (33, 21), "white")
    pen = ImageDraw.Draw(base)
    pen.ellipse((3, 3, 25, 17), fill="red")
    pen.line((0, 20, 32, 0), fill="blue", width=2)
    found = []

    def add(image: Image.Image, kind: str, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())

    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 50, zip=True)
    text.add_itxt("note", "y" * 50)
    frames = [base.rotate(angle) for angle in (90, 180)]
    deep = Image.new("I;16", (33, 21), 40_000)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        add(base.convert(mode), "PNG")
    add(deep, "PNG")
    add(base, "PNG", exif=exif, pnginfo=text, icc_profile=bytes(200))
    add(base, "PNG", save_all=True, append_images=frames)
    for mode in ("L", "RGB", "CMYK"):
        add(base.convert(mode), "JPEG")
    add(base, "JPEG", progressive=True, exif=exif, comment="c" * 20, icc_profile=bytes(200))
    add(base, "JPEG", restart_marker_blocks=1, subsampling=2)
    add(base, "WEBP")
    add(base.convert("RGBA"), "WEBP", lossless=True, exif=exif)
    add(base, "WEBP", save_all=True, append_images=frames)
    add(base.convert("P"), "GIF", transparency=1)
    add(base, "GIF", save_all=True, append_images=frames, comment=b"c" * 300)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        add(base.convert(mode), "BMP")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(base, "TIFF", compression=compression)
    add(base.convert("1"), "TIFF", compression="group4")
    add(base.convert("F"), "TIFF")
    add(deep, "TIFF", compression="tiff_lzw")
    add(base.convert("CMYK"), "TIFF", exif=exif)
    add(base, "TIFF", save_all=True, append_images=frames)
    return found


def mutated(number: int, known: list[bytes]) -> bytes:
    """Image number `number`."""
    draw = random.Random(number)
    content = bytearray(known[number % len(known)])
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        draw.choice(MUTATIONS)(content, draw, known)
    if content[:4] == b"\x89PNG" and draw.random() < 0.6:
        seal(content)
    return bytes(content)


def flip(content: bytearray, draw: random.Random, _: list[bytes]) -> None:
    for _time in range(draw.choice((1, 2, 8, 40))):
        if content:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def truncate(content: bytearray, draw: random.Random, _: list[bytes]) -> None:
    del content[draw.randrange(len(content) + 1) :]


def head(content: bytearray, draw: random.Random, known: list[bytes]) -> None:
    """The head of another file."""
    count = draw.choice((2, 4, 8, 16, 32))
    content[:count] = draw.choice(known)[:count]


def number_field(content: bytearray, draw: random.Random, _: list[bytes]) -> None:
    """An extreme number, most often near the start, where sizes are."""
    width, order = draw.choice("BHI"), draw.choice("<>")
    value = draw.choice(EXTREMES) & (256 ** struct.calcsize(f"<{width}") - 1)
    end = min(len(content), 64) if draw.random() < 0.7 else len(content)
    if end >= 4:
        struct.pack_into(order + width, content, draw.randrange(end - 3), value)


def splice(content: bytearray, draw: random.Random, known: list[bytes]) -> None:
    other = draw.choice(known)
    start = draw.randrange(len(other))
    place = draw.randrange(len(content) + 1)
    content[place:place] = other[start : start + draw.randrange(1, 200)]


def double(content: bytearray, draw: random.Random, _: list[bytes]) -> None:
    start = draw.randrange(len(content) + 1)
    content[start:start] = content[start : start + draw.randrange(1, 100)] * draw.choice((1, 2, 50))


def blank(content: bytearray, draw: random.Random, _: list[bytes]) -> None:
    start, count = draw.randrange(len(content) + 1), draw.randrange(1, 64)
    content[start : start + count] = bytes([draw.choice((0, 255))]) * count


MUTATIONS: list[Callable[[bytearray, random.Random, list[bytes]], None]] = [
    flip, flip, truncate, head, number_field, number_field, splice, double, blank,
]  # fmt: skip


def seal(content: bytearray) -> None:
    """Gives the chunks of a PNG the check sums that they should have, so that readers go on."""
    place = 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4


def problem(content: bytes) -> str:
    """What is wrong with how the opener takes an image; empty where nothing is."""
    began = time.monotonic()
    signal.alarm(SECONDS)
    expected = decoded = None
    try:
        expected = size(content, where="row 1")
        decoded = decode(content, where="row 1")
    except InputError as error:
        if "row 1" not in str(error) or not error.hint:
            return f"unclear: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if decoded is not None and (decoded.mode != "RGB" or decoded.size != expected):
        return f"{decoded.mode} {decoded.size} after {expected}"
    if (took := time.monotonic() - began) > SECONDS:
        return f"{took:.0f} s"
    return ""


def megabytes() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(first: int, count: int) -> None:
    """Decodes `count` images from number `first` on."""
    known = seeds()
    for content in known:
        assert not problem(content), problem(content)
    start, most = megabytes(), 0.0
    for number in range(first, first + count):
        content = mutated(number, known)
        found = problem(content)
        if (now := megabytes() - start) > max(most, MEGABYTES):
            most, found = now, f"{now:.0f} MB"
        if found:
            print(json.dumps({"number": number, "problem": found, "head": content[:40].hex()}), flush=True)
    print(json.dumps({"decoded": count, "megabytes": round(megabytes() - start)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
