"""Mutated image files are decoded or refused: no other exception, no warning."""

from __future__ import annotations

import io
import random
import struct
import zlib
from contextlib import suppress

import pytest
from PIL import Image, ImageDraw

from moextend.data.images import decode, size
from moextend.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def whole() -> list[bytes]:
    """An image in every format, with one frame and with two."""
    base, found = Image.new("RGB", (33, 21), "white"), []
    ImageDraw.Draw(base).ellipse((3, 3, 25, 17), fill="red")
    for form in FORMATS:
        several = (
            {"save_all": True, "append_images": [base.rotate(90)]} if form in ("PNG", "GIF", "TIFF") else {}
        )
        for more in ({}, several):
            base.save(buffer := io.BytesIO(), form, **more)
            found.append(buffer.getvalue())
    return found


def mutated(content: bytearray, draw: random.Random) -> bytes:
    """Flipped bits, an extreme number near the start, a missing or doubled part; a PNG gets right check sums."""
    match draw.randrange(4):
        case 0:
            for _ in range(draw.choice((1, 8, 40))):
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        case 1:
            value = draw.choice(EXTREMES)
            struct.pack_into(
                draw.choice("<>") + "I", content, draw.randrange(min(len(content), 64) - 4), value
            )
        case 2:
            del content[draw.randrange(len(content)) :]
        case _:
            start = draw.randrange(len(content))
            content[start:start] = content[start : start + 100] * draw.choice((1, 50))
    place = 8
    while content[:4] == b"\x89PNG" and place + 12 <= len(content):
        end = place + 8 + struct.unpack_from(">I", content, place)[0]
        with suppress(struct.error):
            struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4
    return bytes(content)


@pytest.mark.filterwarnings("error")
def test_a_thousand_mutated_images() -> None:
    known, refused = whole(), 0
    for number in range(1000):
        content = mutated(bytearray(known[number % len(known)]), random.Random(number))
        try:
            expected = size(content, where="row 1")
            image = decode(content, where="row 1")
        except InputError as error:
            assert "row 1" in str(error) and error.hint, number
            refused += 1
        else:
            assert image.mode == "RGB" and image.size == expected, number
    assert 100 < refused < 900
