"""Notes and melodies: sounds with known timbres, pitches, lengths and orders, made with numpy alone.

A melody is written like a scene: time goes from left to right, pitch from bottom to top, and a timbre, which is the
color of a tone, has the name of a color. So the words of the tiny base are enough for sounds.
"""

from __future__ import annotations

import io
import random
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moextend.bench.world.scenes import Split, hashed
from moextend.bench.world.words import COLORS, ROWS, SIZES

Wave = NDArray[np.float32]
"""Samples in -1..1."""

RATE = 8000
"""Samples per second."""
FULL = 127
"""Largest value of a sample of 8 bit."""
HIGHEST = 0.475 * RATE
"""Highest frequency of a partial in hertz, below half of the rate."""
PERFORMERS = 1000
"""Number of players, and of speakers."""
MOST_NOTES = 4
TIMBRES = {
    "red": "saw",
    "green": "plucked",
    "blue": "sine",
    "yellow": "bell",
    "purple": "square",
    "cyan": "noise",
}
"""Color -> timbre."""
REGISTERS = {"top": 720.0, "middle": 350.0, "bottom": 170.0}
"""Row -> middle of its register in hertz; registers do not overlap."""
SECONDS = {"small": 0.16, "big": 0.36}
"""Size -> length of a note at normal tempo."""


class Sound(NamedTuple):
    """A recording and its truth in time."""

    samples: Wave
    spans: tuple[tuple[float, float], ...]
    """Start and end of every note or sign in seconds."""


@dataclass(frozen=True)
class Note:
    """One note: its timbre (a color), its register (a row) and its length (a size)."""

    color: str
    row: str
    size: str


@dataclass(frozen=True)
class Melody:
    """Notes one after the other, played once by one player."""

    notes: tuple[Note, ...]
    player: int = 0
    """Determines tuning, tempo and brightness."""
    take: int = 0
    """Seed of the pitch within a register, pauses, loudness and background noise; no question asks for them."""

    def described(self) -> str:
        """Full description, e.g. "top big red ; bottom small blue ."; equal for other players and takes."""
        return " ; ".join(f"{note.row} {note.size} {note.color}" for note in self.notes) + " ."

    def split(self) -> Split | None:
        """Split of the player; None for melodies of several notes that this player does not play (see split_of)."""
        return split_of(self.player, self.described(), len(self.notes))

    def performed(self) -> Sound:
        """The sound, 0.2 s to 2 s."""
        rng, style = np.random.default_rng(self.take), style_of(self.player)
        return recorded([played(note, style, rng) for note in self.notes], (0.05, 0.08), rng)


def split_of(performer: int, content: str, parts: int) -> Split | None:
    """Split of a performance by its performer; None if the performer is of one split, and the content of the other.

    One performer in five and one content in five are of the test split. A content of one part is of both.
    """
    by: Split = "test" if hashed(f"performer {performer}") % 5 == 0 else "train"
    of: Split = "test" if hashed(f"performed {content}") % 5 == 0 else "train"
    return by if parts == 1 or by == of else None


def draw_melody(
    rng: random.Random, split: Split, least: int = 1, most: int = MOST_NOTES, colors: Sequence[str] = ()
) -> Melody:
    """A melody of the split in some colors, by default often only two, so that equal timbres are common."""
    count = rng.randint(least, most)
    while True:
        pool = colors or (COLORS if rng.random() < 0.5 else rng.sample(COLORS, 2))
        notes = tuple(Note(rng.choice(pool), rng.choice(ROWS), rng.choice(SIZES)) for _ in range(count))
        melody = Melody(notes, rng.randrange(PERFORMERS), rng.getrandbits(32))
        if melody.split() == split:
            return melody


class Style(NamedTuple):
    """How a player plays."""

    tuning: float
    """Semitones above the middle of a register."""
    tempo: float
    slope: float
    """Gain of harmonic k is k to the power of minus this number."""
    attack: float
    """Seconds."""


def style_of(player: int) -> Style:
    """The style of a player, the same at every call."""
    rng = np.random.default_rng([player, 5])
    return Style(
        rng.uniform(-2, 2), rng.uniform(0.88, 1.12), rng.uniform(0.7, 1.0), rng.uniform(0.006, 0.016)
    )


def recorded(parts: Sequence[Wave], pauses: tuple[float, float], rng: np.random.Generator) -> Sound:
    """Sounds one after the other as from a microphone.

    They get pauses of random length around them, some loudness, background noise, and the steps of 8 bit.
    """
    pieces, spans, at = [_silence(rng, 0.02, 0.06)], list[tuple[float, float]](), 0
    for part in parts:
        at += len(pieces[-1])
        spans.append((at / RATE, (at + len(part)) / RATE))
        at += len(part)
        pieces += [part, _silence(rng, *pauses)]
    samples = np.concatenate(pieces)
    loud = samples * (rng.uniform(0.3, 0.9) / (float(np.abs(samples).max()) + 1e-6))
    noisy = loud + rng.uniform(0.004, 0.014) * rng.standard_normal(len(loud))
    return Sound((np.round(np.clip(noisy, -1, 1) * FULL) / FULL).astype(np.float32), tuple(spans))


def wav(samples: Wave) -> bytes:
    """Samples as an encoded WAV: 8 bit, mono."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(RATE)
        file.writeframes((np.round(samples * FULL) + 128).astype(np.uint8).tobytes())
    return buffer.getvalue()


def _silence(rng: np.random.Generator, least: float, most: float) -> Wave:
    return np.zeros(int(rng.uniform(least, most) * RATE), np.float32)


def played(note: Note, style: Style, rng: np.random.Generator) -> Wave:
    """A note with a short attack and release and a mean power that does not depend on its timbre."""
    pitch = REGISTERS[note.row] * 2 ** ((style.tuning + rng.uniform(-2, 2)) / 12)
    count = int(SECONDS[note.size] / style.tempo * RATE)
    samples = _SOURCES[TIMBRES[note.color]](pitch, count, style, rng)
    edge = np.minimum(np.arange(count), np.arange(count)[::-1]) / (style.attack * RATE)
    shaped = samples * np.minimum(edge, 1)
    power = float(np.mean(shaped**2))
    return np.asarray(shaped / (power**0.5 + 1e-6), np.float32)


def _harmonics(pitch: float, count: int, orders: NDArray[np.float64], slope: float) -> Wave:
    """Sum of the harmonics below the highest frequency."""
    kept = orders[orders * pitch < HIGHEST]
    phase = 2 * np.pi * pitch * np.arange(count) / RATE
    return np.asarray(kept**-slope @ np.sin(np.outer(kept, phase)), np.float32)


def _sine(pitch: float, count: int, style: Style, rng: np.random.Generator) -> Wave:
    return _harmonics(pitch, count, np.ones(1), style.slope)


def _saw(pitch: float, count: int, style: Style, rng: np.random.Generator) -> Wave:
    return _harmonics(pitch, count, np.arange(1.0, 25), style.slope)


def _square(pitch: float, count: int, style: Style, rng: np.random.Generator) -> Wave:
    return _harmonics(pitch, count, np.arange(1.0, 25, 2), style.slope)


def _bell(pitch: float, count: int, style: Style, rng: np.random.Generator) -> Wave:
    """Inharmonic partials that decay, the high ones faster."""
    ratios, time = np.array([1.0, 1.2, 2.0, 2.76, 5.4, 8.93]), np.arange(count) / RATE
    decay = np.exp(-np.outer(np.array([5.0, 6.0, 7.0, 8.0, 12.0, 18.0]), time))
    waves = np.sin(2 * np.pi * pitch * np.outer(ratios, time)) * decay
    gains = np.where(ratios * pitch < HIGHEST, [1.0, 0.8, 0.6, 1.0, 0.8, 0.6], 0)
    return np.asarray(gains @ waves, np.float32)


def _plucked(pitch: float, count: int, style: Style, rng: np.random.Generator) -> Wave:
    """A plucked string (Karplus and Strong, 1983): a delay line of noise with a low-pass filter.

    The filter is weaker for short lines, so that the overtones of high notes do not vanish at once.
    """
    period = round(RATE / pitch)
    line = np.interp(np.arange(period) / period, [0, rng.uniform(0.1, 0.3), 1], [0, 1, 0])
    line += rng.uniform(-0.5, 0.5, period)
    line -= line.mean()
    blend, decay = 0.5 * min(1, period / 50), np.exp(-period / RATE / 0.12)
    periods = [line]
    while len(periods) * period < count:
        line = decay * ((1 - blend) * line + blend * np.roll(line, 1))
        periods.append(line)
    return np.concatenate(periods)[:count].astype(np.float32)


def _noise(pitch: float, count: int, style: Style, rng: np.random.Generator) -> Wave:
    """Noise in a band around the pitch."""
    return banded(rng.standard_normal(count), pitch, 0.25 * pitch)


_SOURCES: dict[str, Callable[[float, int, Style, np.random.Generator], Wave]] = {
    "sine": _sine,
    "square": _square,
    "saw": _saw,
    "plucked": _plucked,
    "bell": _bell,
    "noise": _noise,
}


def banded(samples: NDArray[np.float64], middle: float, width: float) -> Wave:
    """Samples through a Gaussian band-pass filter; `middle` and `width` (standard deviation) in hertz."""
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    gain = np.exp(-0.5 * ((frequencies - middle) / width) ** 2)
    return np.fft.irfft(np.fft.rfft(samples) * gain, len(samples)).astype(np.float32)
