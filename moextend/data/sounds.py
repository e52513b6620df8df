"""Decodes encoded sounds to mono samples; no other module decodes sound files.

Sound files are untrusted. The content decides the format, from a short list: libsndfile has readers of many rare
formats. Length, rate and channels are checked before samples are decoded, and samples are decoded in blocks, so a
header with false numbers costs no memory. Every exception of a reader becomes an InputError.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from moextend.data.media import MediaRef
from moextend.errors import InputError

if TYPE_CHECKING:
    from soundfile import SoundFile


_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, flags, granule position, stream, number, checksum, number of segments."""
_CHECKSUM = slice(22, 26)
"""Bytes of the checksum in a page."""
_FIRST, _LAST = 2, 4
"""Flags of the first and of the last page of a stream."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Byte -> the byte with its bits in reverse order."""
_ONES = 0xFFFF_FFFF


Samples = npt.NDArray[np.float32]
NAMES = "WAV, FLAC, OGG (Vorbis, Opus) or MP3"
BYTES = 1 << 28
"""Maximum number of bytes of one encoded sound."""
SECONDS = 600
"""Maximum length of one sound."""
RATES = (1_000, 192_000)
"""Lowest and highest number of samples per second."""
CHANNELS = 16
"""Maximum number of channels."""
_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")
_ENCODINGS = (
    "PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW",
    "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III",
)  # fmt: skip
_BLOCK = 1 << 18
"""Number of values (samples of all channels) that are decoded at a time."""
_REST = 1 << 11
"""Maximum number of bytes after the last frame of an MP3 (tags, an incomplete frame)."""
_REPLACE = "Replace the sound or remove the row."
_CONVERT = "Convert the sound to 16-bit WAV or FLAC."
MARK = "<audio>"
"""Placeholder of a sound in a text."""


def ogg_defect(data: bytes) -> str | None:
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


@dataclass(frozen=True)
class Waveform:
    """Decoded sound: mono samples, float32 in -1..1."""

    samples: Samples
    rate: int
    """Samples per second."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate

    def resampled(self, rate: int) -> Waveform:
        """The sound at another rate, by soxr's high-quality filter; `resampled_length` samples."""
        if rate == self.rate:
            return self
        import soxr

        wanted = resampled_length(len(self.samples), self.rate, rate)
        found = soxr.resample(self.samples, self.rate, rate)[:wanted]
        return Waveform(np.pad(found, (0, wanted - len(found))), rate)


def resampled_length(samples: int, rate: int, to: int) -> int:
    """Number of samples after a change of the rate: rounded, at least one."""
    return max(1, (2 * samples * to + rate) // (2 * rate))


@dataclass(frozen=True)
class Header:
    """What a file states about itself."""

    samples: int
    """Number of samples per channel, which `decode` returns."""
    rate: int
    channels: int


def header(data: bytes, *, where: str) -> Header:
    """Length and rate of the sound that `decode` returns, without decoding (except of an MP3 without a length)."""
    with _opened(data, where) as file:
        return Header(_length(file, data, where), file.samplerate, file.channels)


def decode(data: bytes, *, where: str) -> Waveform:
    """The sound: the mean of its channels, divided by its peak if the peak is above 1.

    Raises:
        InputError: not one of the formats of `NAMES`, above a limit of this module, empty, truncated or broken.
    """
    with _opened(data, where) as file:
        wanted = _length(file, data, where)
        found = np.concatenate([np.zeros(0, np.float32), *_blocks(file, wanted)])
    if len(found) < wanted:
        raise InputError(
            f"the sound is truncated: it states {wanted / file.samplerate:.2f} s and holds "
            f"{len(found) / file.samplerate:.2f} s.",
            where=where,
            hint=_REPLACE,
        )
    return Waveform(_scaled(found, where), file.samplerate)


def encode(samples: Any, rate: int, *, where: str) -> bytes:
    """WAV (float32, mono) of an array [samples], [samples, channels] or [channels, samples].

    Integers (of at most 32 bits) are scaled to -1..1 by their type, and floats with a peak above 1 are divided by the
    peak, as `decode` does. The same samples give the same bytes.

    Raises:
        InputError: no such array, empty, above a limit of this module, or with NaN.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise InputError(
            f"the rate {rate!r:.40} is not a whole number.",
            where=where,
            hint="Give the number of samples per second.",
        )
    mono = _mono(samples, where)
    _check(len(mono), int(rate), 1, where)
    body = np.ascontiguousarray(_scaled(mono, where), "<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, rate, 4 * rate, 4, 32)
    fact = struct.pack("<4sII", b"fact", 4, len(mono))
    chunks = form + fact + struct.pack("<4sI", b"data", len(body)) + body
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks


def _mono(samples: Any, where: str) -> Samples:
    try:
        found = np.asarray(samples)
    except Exception as error:  # ragged lists, tensors on a device
        raise InputError(
            f"the samples are not an array ({error}).", where=where, hint="Give a numpy array."
        ) from error
    integers = found.dtype.kind in "iu" and found.dtype.itemsize <= 4
    if not (integers or found.dtype.kind == "f") or found.ndim not in (1, 2):
        raise InputError(
            f"the samples are an array of {found.dtype} with {found.ndim} dimensions.",
            where=where,
            hint="Give floats (louder ones are scaled to a peak of 1) or integers of 8, 16 or 32 bits, of "
            "shape [samples] or [samples, channels].",
        )
    floats: npt.NDArray[np.floating[Any]] = found.astype(np.float64)
    if integers:
        half = 2.0 ** (8 * found.dtype.itemsize - 1)
        floats = floats / half - (found.dtype.kind == "u")
    if floats.ndim == 2:
        floats = floats.mean(axis=int(floats.shape[0] >= floats.shape[1]))
    with np.errstate(over="ignore"):  # infinities are an error later
        return floats.astype(np.float32)


def _scaled(samples: Samples, where: str) -> Samples:
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak):
        raise InputError("the sound holds NaN or infinite samples.", where=where, hint=_REPLACE)
    return (samples / np.float32(peak)).astype(np.float32) if peak > 1 else samples


def _check(samples: int, rate: int, channels: int, where: str) -> None:
    low, high = RATES
    if not low <= rate <= high:
        raise InputError(
            f"the sound has {rate:,} samples per second; {low:,} to {high:,} are supported.",
            where=where,
            hint="Resample it, or remove the row.",
        )
    if channels > CHANNELS:
        raise InputError(
            f"the sound has {channels:,} channels, more than {CHANNELS}.",
            where=where,
            hint="Save it as mono.",
        )
    if samples <= 0:
        raise InputError("the sound has no samples.", where=where, hint=_REPLACE)
    if samples > SECONDS * rate:
        raise InputError(
            f"the sound is {samples / rate:,.0f} s long, longer than {SECONDS} s.",
            where=where,
            hint="Cut the sound, or remove the row.",
        )


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[SoundFile]:
    import soundfile

    if len(data) > BYTES:
        raise InputError(f"the sound has more than {BYTES:,} bytes.", where=where, hint="Shorten the sound.")
    if not data:
        raise InputError("the sound is empty: it has 0 bytes.", where=where, hint=_REPLACE)
    data = _without_tags(data)
    kind = _kind(data)
    if kind is None:
        raise InputError(f"the sound is broken, or not {NAMES}.", where=where, hint=_CONVERT)
    if kind == "WAV":
        _check_complete(data, where)
    if kind == "OGG" and (defect := ogg_defect(data)):
        raise InputError(f"the sound is {defect}.", where=where, hint=_REPLACE)
    try:
        # Only the reader of MP3 writes to standard error.
        with (
            _no_standard_error() if kind == "MP3" else nullcontext(),
            soundfile.SoundFile(_File(data)) as file,
        ):
            if file.format not in _FORMATS or file.subtype not in _ENCODINGS:
                raise InputError(
                    f"the sound is {file.format} with encoding {file.subtype}, which is not supported.",
                    where=where,
                    hint=_CONVERT,
                )
            yield file
    except InputError:
        raise
    except Exception as error:  # of libsndfile, and of soundfile for what libsndfile returned
        reason = " ".join(str(getattr(error, "error_string", error)).split())[:120].rstrip(".")
        shown = f" ({reason})" if reason else ""
        raise InputError(f"the sound is broken{shown}.", where=where, hint=_REPLACE) from error


class _File(io.BytesIO):
    """The bytes as a file without exceptions, which libsndfile's callbacks would print."""

    def seek(self, offset: int, origin: int = 0, /) -> int:
        start = (0, self.tell(), len(self.getbuffer()))[origin] if 0 <= origin <= 2 else 0
        return super().seek(max(0, start + offset))


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Context without the standard error of the process, where libraries in C write."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _kind(data: bytes) -> str | None:
    """Format of the content by its first bytes; None if it is not supported."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "WAV"
    if data[:4] in (b"fLaC", b"OggS"):
        return "FLAC" if data[:1] == b"f" else "OGG"
    return "MP3" if len(data) > 4 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 else None


def _without_tags(data: bytes) -> bytes:
    """The content after ID3v2 tags, which may precede any format."""
    start = 0
    while data[start : start + 3] == b"ID3" and len(data) >= start + 10:
        size = 0
        for byte in data[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        start += 10 + size + (10 if data[start + 5] & 0x10 else 0)
    return data[start:] if start else data


def _check_complete(data: bytes, where: str) -> None:
    """Raises InputError if a WAV states more bytes of samples than it holds; libsndfile would shorten it."""
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        held = len(data) - place - 8
        if name == b"data":
            # Programs that write to a pipe do not know the length and state the largest one.
            if held < size < 0x7FFF_F000:
                raise InputError(
                    f"the sound is truncated: it states {size:,} bytes of samples and holds {held:,}.",
                    where=where,
                    hint=_REPLACE,
                )
            return
        place += 8 + size + size % 2


def _length(file: SoundFile, data: bytes, where: str) -> int:
    """Number of samples per channel, checked like rate and channels."""
    stated = int(file.frames)
    if stated > 1 << 60:
        raise InputError(
            "the sound does not state its length.", where=where, hint="Save it again, as a file."
        )
    _check(stated, file.samplerate, file.channels, where)
    if file.format == "MP3" and not _states_length(data):
        stated = _counted(file, stated, where)
        _check(stated, file.samplerate, file.channels, where)
    return stated


def _counted(file: SoundFile, estimate: int, where: str) -> int:
    """Number of samples of an MP3 that states none; libsndfile's estimate holds for a constant bit rate."""
    found = sum(len(block) for block in _blocks(file, estimate))
    size = len(file.name.getbuffer())
    if size - file.name.tell() > max(_REST, size // 10):
        raise InputError(
            "the sound does not state its length, and its bit rate varies.", where=where, hint=_CONVERT
        )
    file.seek(0)
    return found


def _states_length(data: bytes) -> bool:
    """Whether the first frame of an MP3 gives the length; otherwise libsndfile estimates it."""
    head = _without_tags(data)[:256]
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))


def _blocks(file: SoundFile, wanted: int) -> Iterator[Samples]:
    """The mean of the channels, block by block, up to `wanted` samples."""
    size = max(1, _BLOCK // file.channels)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinities are an error later
        while wanted > 0:
            block = file.read(min(size, wanted), dtype="float32", always_2d=True)
            if not len(block):
                return
            wanted -= len(block)
            yield block[:, 0].copy() if file.channels == 1 else block.mean(axis=1)


@dataclass(frozen=True)
class AudioRef(MediaRef):
    """An encoded sound (WAV, FLAC, OGG, MP3) in memory or in a file; `open` decodes it."""

    modality: ClassVar[str] = "audio"
    noun: ClassVar[str] = "the sound"
    most: ClassVar[int] = BYTES

    @classmethod
    def of(cls, samples: Any, rate: int, where: str = "") -> AudioRef:
        """The sound of an array and its samples per second, as WAV in memory (see encode).

        Floats with a peak above 1 are divided by the peak; integers are scaled by their type.
        """
        return cls(data=encode(samples, rate, where=where or cls.modality), where=where)

    def open(self) -> Waveform:
        """The decoded mono sound (see decode). Raises InputError if it is broken."""
        return decode(self.read(), where=self.place)

    @cached_property
    def header(self) -> Header:
        """Length and rate, read from the header. Raises InputError if they are above the limits."""
        return header(self.read(), where=self.place)

    @property
    def seconds(self) -> float:
        """Length in seconds of the sound that `open` returns, read from the header."""
        return self.header.samples / self.header.rate

    def samples_at(self, rate: int) -> int:
        """Number of samples of the sound after `Waveform.resampled(rate)`, read from the header."""
        return resampled_length(self.header.samples, self.header.rate, rate)
