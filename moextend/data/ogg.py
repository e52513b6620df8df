"""Checks that an Ogg file is complete; libsndfile shortens a truncated one without an error.

A file is a sequence of pages (RFC 3533). A page states its length, its stream, its number in the stream, a checksum of
its bytes, and whether it is the first or the last one of the stream.
"""

from __future__ import annotations

import struct
import zlib

_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, flags, granule position, stream, number, checksum, number of segments."""
_CHECKSUM = slice(22, 26)
"""Bytes of the checksum in a page."""
_FIRST, _LAST = 2, 4
"""Flags of the first and of the last page of a stream."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Byte -> the byte with its bits in reverse order."""
_ONES = 0xFFFF_FFFF


def defect(data: bytes) -> str | None:
    """What is wrong with an Ogg file, as the end of a sentence; None if it is complete.

    Bytes after the last page (tags) are ignored.
    """
    place, expected = 0, dict[int, int]()
    while expected or data[place : place + 4] == b"OggS":
        starts = b"OggS".startswith(data[place : place + 4])
        page = _page(data, place)
        if page is None and starts:
            return "truncated: its last Ogg page is missing or incomplete"
        if page is None or not starts or not _has_checksum(page):
            return f"damaged: byte {place:,} begins no Ogg page with its checksum"
        _, _, flags, _, stream, number, *_ = _HEADER.unpack_from(page)
        if not flags & _FIRST and expected.get(stream) != number:
            return f"damaged: Ogg pages before byte {place:,} are missing"
        expected[stream] = number + 1 & _ONES
        if flags & _LAST:
            del expected[stream]
        place += len(page)
    return None


def _page(data: bytes, place: int) -> bytes | None:
    """The page at a place; None if the data end before it does."""
    start = place + _HEADER.size
    if start > len(data):
        return None
    segments = data[start - 1]
    end = start + segments + sum(data[start : start + segments])
    return data[place:end] if end <= len(data) else None


def _has_checksum(page: bytes) -> bool:
    """Whether a page has its checksum: zlib's CRC-32, but with the bits in the other order and without inversions."""
    zeroed = page[: _CHECKSUM.start] + bytes(4) + page[_CHECKSUM.stop :]
    found = zlib.crc32(zeroed.translate(_REVERSED), _ONES) ^ _ONES
    return found == int.from_bytes(page[_CHECKSUM].translate(_REVERSED))
