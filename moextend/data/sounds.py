"""Decodes encoded sounds to mono samples; no other module decodes sound files.

Sound files are untrusted. The content decides the format, from a short list: libsndfile has readers of many rare
formats. Length, rate and channels are checked before samples are decoded, and samples are decoded in blocks, so a
header with false numbers costs no memory. Every exception of a reader becomes an InputError.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from moextend.data.media import MediaRef
from moextend.errors import InputError

if TYPE_CHECKING:
    from soundfile import SoundFile

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
_START = re.compile(rb"RIFF....WAVE|fLaC|OggS|ID3|\xff[\xe0-\xff]", re.DOTALL)
_STATED = re.compile(rb"(?:Xing|Info)\0\0\0|VBRI\0")
"""Mark of an MP3 that gives its length; of others libsndfile estimates it."""
_BLOCK = 1 << 18
"""Number of values (samples of all channels) that are decoded at a time."""
_REPLACE = "Replace the sound or remove the row."
_CONVERT = "Convert the sound to 16-bit WAV or FLAC."


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
        raise _truncated(f"{wanted / file.samplerate:.2f} s", f"{len(found) / file.samplerate:.2f} s", where)
    return Waveform(_scaled(found, where), file.samplerate)


def encode(samples: Any, rate: int, *, where: str) -> bytes:
    """WAV (float32, mono) of an array [samples], [samples, channels] or [channels, samples].

    Integers (of at most 32 bits) are scaled to -1..1 by their type, and floats with a peak above 1 are divided by the
    peak, as `decode` does. The same samples give the same bytes.

    Raises:
        InputError: no such array or rate, empty, above a limit of this module, or with NaN.
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
    except Exception:  # ragged lists, tensors on a device
        found = np.empty(0, object)
    integers = found.dtype.kind in "iu" and found.dtype.itemsize <= 4
    if not (integers or found.dtype.kind == "f") or found.ndim not in (1, 2):
        raise InputError(
            f"the samples are no array of numbers, but of {found.dtype} with {found.ndim} dimensions.",
            where=where,
            hint="Give floats or integers of 8, 16 or 32 bits, of shape [samples] or [samples, channels].",
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
        raise _error("holds NaN or infinite samples", where)
    return (samples / np.float32(peak)).astype(np.float32) if peak > 1 else samples


def _check(samples: int, rate: int, channels: int, where: str) -> None:
    low, high = RATES
    problems = {
        f"has {rate:,} samples per second; {low:,} to {high:,} are supported": not low <= rate <= high,
        f"has {channels:,} channels, more than {CHANNELS}": channels > CHANNELS,
        "has no samples": samples <= 0,
        f"is {samples / max(1, rate):,.0f} s long, longer than {SECONDS} s": samples > SECONDS * rate,
    }
    for what, wrong in problems.items():
        if wrong:
            raise _error(what, where, "Convert or cut it, or remove the row.")


def _truncated(stated: str, held: str, where: str) -> InputError:
    return _error(f"is truncated: it states {stated} and holds {held}", where)


def _error(what: str, where: str, hint: str = _REPLACE) -> InputError:
    return InputError(f"the sound {what}.", where=where, hint=hint)


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[SoundFile]:
    import soundfile

    if len(data) > BYTES:
        raise _error(f"has more than {BYTES:,} bytes", where, "Shorten the sound.")
    if not data:
        raise _error("is empty: it has 0 bytes", where)
    if not _START.match(data):
        raise _error(f"is broken, or not {NAMES}", where, _CONVERT)
    if data[:4] == b"RIFF":
        _check_complete(data, where)
    try:
        with soundfile.SoundFile(_File(data)) as file:
            if file.format not in _FORMATS:
                raise _error(f"is {file.format}, not {NAMES}", where, _CONVERT)
            yield file
    except InputError:
        raise
    except Exception as error:  # of libsndfile, and of soundfile for what libsndfile returned
        reason = " ".join(str(getattr(error, "error_string", error)).split())[:120].rstrip(".")
        raise _error(f"is broken{f' ({reason})' if reason else ''}", where) from error


class _File(io.BytesIO):
    """The bytes as a file without exceptions, which libsndfile's callbacks would print."""

    def seek(self, offset: int, origin: int = 0, /) -> int:
        start = (0, self.tell(), len(self.getbuffer()))[origin] if 0 <= origin <= 2 else 0
        return super().seek(max(0, start + offset))


def _check_complete(data: bytes, where: str) -> None:
    """Raises InputError if a WAV states more bytes of samples than it holds; libsndfile would shorten it."""
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        held = len(data) - place - 8
        if name == b"data":
            # Programs that write to a pipe do not know the length and state the largest one.
            if held < size < 0x7FFF_F000:
                raise _truncated(f"{size:,} bytes of samples", f"{held:,}", where)
            return
        place += 8 + size + size % 2


def _length(file: SoundFile, data: bytes, where: str) -> int:
    """Number of samples per channel, checked like rate and channels."""
    found = int(file.frames)
    _check(found, file.samplerate, file.channels, where)
    if file.format == "MP3" and not _STATED.search(data, 0, 1 << 20):
        found = sum(len(block) for block in _blocks(file, SECONDS * file.samplerate + 1))
        _check(found, file.samplerate, file.channels, where)
        if len(data) - file.name.tell() > max(
            1 << 11, len(data) // 10
        ):  # libsndfile estimates by a constant bit rate
            raise _error("does not state its length, and its bit rate varies", where, _CONVERT)
        file.seek(0)
    return found


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
        """The sound of an array and its samples per second, as WAV in memory (see encode)."""
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
