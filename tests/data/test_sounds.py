"""Decoding of sounds; every damaged file gives exactly one type of error."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from moextend.data import sounds
from moextend.data.sounds import AudioRef
from moextend.errors import InputError

LOSSLESS = [("WAV", each) for each in ("PCM_U8", "PCM_16", "FLOAT")] + [
    ("FLAC", each) for each in ("PCM_16",)
]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
STEPS = {"PCM_U8": 2.0**-7, "PCM_16": 2.0**-15}


def tone(samples: int, rate: int, pitch: float = 440.0) -> sounds.Samples:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(samples) / rate)).astype(np.float32)


def encoded(samples: Any, rate: int, kind: str = "WAV", encoding: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=encoding)
    return buffer.getvalue()


def decoded(data: bytes) -> sounds.Waveform:
    ref = AudioRef(data=data, where="row 1")
    found = ref.open()
    assert found.samples.dtype == np.float32 and found.samples.ndim == 1
    assert ref.seconds == found.seconds and ref.header.rate == found.rate
    return found


@pytest.mark.parametrize(("kind", "encoding"), LOSSLESS)
def test_lossless_sounds_decode_to_their_samples(kind: str, encoding: str) -> None:
    rate = 22_050
    found = decoded(encoded(tone(900, rate), rate, kind, encoding))
    assert found.rate == rate
    assert np.abs(found.samples - tone(900, rate)).max() <= STEPS.get(encoding, 2.0**-22)


@pytest.mark.parametrize(("kind", "encoding"), LOSSY)
def test_lossy_sounds_decode_to_about_their_samples(kind: str, encoding: str) -> None:
    rate = 48_000
    found = decoded(encoded(tone(rate, rate), rate, kind, encoding))
    assert found.rate == rate and abs(found.seconds - 1) < 1e-3
    assert np.abs(found.samples - tone(rate, rate))[rate // 4 : -rate // 4].max() < 0.1


def test_channels_become_their_mean() -> None:
    left, right = tone(800, 8_000), tone(800, 8_000, 1000.0)
    found = decoded(encoded(np.stack([left, right], 1), 8_000, "WAV", "FLOAT"))
    assert np.allclose(found.samples, (left + right) / 2, atol=1e-7)


def test_samples_above_one_are_divided_by_the_peak() -> None:
    loud = 5 * tone(800, 8_000)
    found = decoded(encoded(loud, 8_000, "WAV", "FLOAT"))
    assert np.allclose(found.samples, loud / np.abs(loud).max(), atol=1e-7)


def test_tags_before_a_sound_are_skipped() -> None:
    tags = b"ID3\x03\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)
    for kind in ("MP3", "FLAC"):
        assert len(decoded(tags + encoded(tone(8_000, 8_000), 8_000, kind)).samples) == 8_000


def test_a_wav_of_a_pipe_has_the_length_that_it_holds() -> None:
    data = bytearray(encoded(tone(800, 8_000), 8_000))
    struct.pack_into("<I", data, data.index(b"data") + 4, 0xFFFF_FFFF)
    assert len(decoded(bytes(data)).samples) == 800


@pytest.mark.parametrize(
    ("samples", "rate", "to"), [(1, 192_000, 8_000), (3_999, 44_100, 16_000), (4_000, 1_000, 48_000)]
)
def test_resampled_sounds_have_the_stated_length(samples: int, rate: int, to: int) -> None:
    ref = AudioRef.of(tone(samples, rate), rate)
    found = ref.open().resampled(to)
    assert len(found.samples) == ref.samples_at(to) >= 1 and found.rate == to


@pytest.mark.parametrize(
    ("samples", "wanted"),
    [
        (np.array([0.0, 0.25, -1.0]), [0.0, 0.25, -1.0]),
        ([0, 0.5], [0.0, 0.5]),
        (np.array([0, 16384, -32768], np.int16), [0.0, 0.5, -1.0]),
        (np.array([[0.0, 0.5], [1.0, 0.5], [0.0, 0.0]]), [0.25, 0.75, 0.0]),
        (np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]), [0.25, 0.75, 0.0]),
    ],
)
def test_arrays_become_wav(samples: Any, wanted: list[float]) -> None:
    ref = AudioRef.of(samples, 8_000)
    assert ref.open().samples.tolist() == wanted
    assert ref.digest == AudioRef.of(samples, 8_000).digest, "of the samples alone"
    found, rate = soundfile.read(io.BytesIO(ref.read()))
    assert found.tolist() == wanted and rate == 8_000, "other programs read it"


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        ([], 8_000, "has no samples"),
        ([0.0, float("nan")], 8_000, "NaN or infinite"),
        ([0.0], 0, "0 samples per second; 1,000 to 192,000"),
        ([0.0], 8_000.5, "rate 8000.5 is not a whole number"),
        ([0, 1_000], 8_000, "of int64 with 1 dimensions"),
        ([[0.0], [0.0, 1.0]], 8_000, "no array of numbers"),
        (np.zeros((2, 2, 2)), 8_000, "3 dimensions"),
    ],
)
def test_wrong_arrays_are_refused(samples: Any, rate: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        AudioRef.of(samples, rate, where="row 7")
    assert str(error.value).startswith("row 7: ") and error.value.hint


def wav(
    rate: int = 8_000, channels: int = 1, size: int | None = None, samples: bytes = bytes(800), bits: int = 16
) -> bytes:
    """A WAV whose header states these numbers."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * block, 2**32 - 1), block, bits)
    size = len(samples) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size) + samples
    return b"RIFF" + struct.pack("<I", min(len(body) + size, 2**32 - 1)) + body


def flac(samples: int) -> bytes:
    """A FLAC whose header states so many samples."""
    data = bytearray(encoded(tone(800, 8_000), 8_000, "FLAC"))
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = struct.pack(">I", samples & 0xFFFF_FFFF)
    return bytes(data)


SOUND = encoded(tone(8_000, 8_000), 8_000)
REFUSED = {
    "nothing": (b"", "the sound is empty: it has 0 bytes. Replace"),
    "text": (b"no sound at all, but a text", "broken, or not WAV, FLAC, OGG"),
    "AIFF": (encoded(tone(80, 8_000), 8_000, "AIFF"), "broken, or not WAV"),
    "no samples": (encoded(tone(0, 8_000), 8_000), "has no samples"),
    "no samples of FLAC": (flac(0), "longer than 600 s"),
    "rate 10": (wav(rate=10), "has 10 samples per second"),
    "channels": (wav(channels=400), "has 400 channels, more than 16"),
    "too long": (wav(rate=1_000, samples=bytes(1_300_000)), "is 650 s long, longer than 600 s"),
    "truncated WAV": (SOUND[:-4_000], r"truncated: it states 16,000 bytes of samples and holds 12,000"),
    "a lying WAV": (wav(size=2**31 - 2**14), "truncated"),
    "a lying FLAC": (flac(2**36 - 1), "s long, longer than 600 s"),
    "a FLAC that is too short": (flac(80_000), "sound is (broken|truncated)"),
    "truncated FLAC": (encoded(tone(8_000, 8_000), 8_000, "FLAC")[:-400], "sound is broken"),
    "truncated MP3": (encoded(tone(8_000, 8_000), 8_000, "MP3")[:-400], "truncated: it states 1.00 s"),
    "NaN": (encoded(np.array([0, np.nan]), 8_000, "WAV", "FLOAT"), "NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(InputError, match=f"^row 3: .*{message}") as error:
        AudioRef(data=data, where="row 3").open()
    assert error.value.hint and "\n" not in str(error.value)


def test_too_many_bytes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "large.wav").open("wb") as file:
        file.truncate(sounds.BYTES + 1)  # sparse
    with pytest.raises(InputError, match=r"large\.wav: the sound has 268,435,457 bytes, more than"):
        AudioRef(path=tmp_path / "large.wav").open()
    monkeypatch.setattr(sounds, "BYTES", 10)
    with pytest.raises(InputError, match="more than 10 bytes"):
        AudioRef(data=SOUND).open()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 2: .*none\.wav: the sound cannot be read"):
        AudioRef(path=tmp_path / "none.wav", where="row 2").open()
    with pytest.raises(InputError, match=r"row 2: holds no audio\."):
        _ = AudioRef(where="row 2").seconds


def test_an_mp3_without_a_length_is_counted() -> None:
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", 16_000, 1, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5
    ) as file:
        file.write(np.random.default_rng(0).normal(0, 0.1, 48_000))
    data = buffer.getvalue()
    bare = data[data.index(data[:2], 4) :]  # the first frame states the length
    assert decoded(data).seconds == 3 and abs(decoded(bare).seconds - 3) < 0.2
