"""A small formant synthesiser that says the names of letters and digits, made with numpy alone.

A name is a row of phonemes. A voiced sound is a sum of harmonics of the voice's pitch, weighted by resonances
(formants) that glide from phoneme to phoneme; hisses and bursts are noise in a band. A speaker is a number: it
determines pitch, length of the vocal tract, rate and breath.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moextend.bench.world.scenes import Split
from moextend.bench.world.sound import HIGHEST, PERFORMERS, RATE, Sound, Wave, banded, recorded, split_of
from moextend.bench.world.words import DIGITS, LETTERS

SPOKEN = (*LETTERS, *DIGITS)
"""What the tasks say: the letters and digits that the tiny base knows."""
STEP = 16
"""Samples (2 ms) for which the gains of the harmonics stay the same."""
GLIDE = 0.025
"""Seconds of a transition between phonemes."""

Track = NDArray[np.float64]


class Phoneme(NamedTuple):
    """A sound of speech."""

    seconds: float
    formants: tuple[float, float, float] = (500.0, 1500.0, 2500.0)
    """Resonances in hertz, of an adult with a vocal tract of 17 cm."""
    voice: float = 1.0
    """Gain of the voice; 0 for a voiceless sound."""
    noise: float = 0.0
    """Gain of the noise."""
    band: tuple[float, float] = (3000.0, 500.0)
    """Middle and width of the noise in hertz."""


PHONEMES = {
    # vowels; two of them make a diphthong
    "i": Phoneme(0.16, (280, 2250, 2950)),
    "I": Phoneme(0.12, (400, 1950, 2600)),
    "e": Phoneme(0.10, (450, 1950, 2550)),
    "E": Phoneme(0.14, (580, 1750, 2500)),
    "a": Phoneme(0.12, (750, 1250, 2500)),
    "A": Phoneme(0.18, (730, 1090, 2440)),
    "V": Phoneme(0.12, (620, 1200, 2450)),
    "@": Phoneme(0.07, (500, 1450, 2450)),
    "o": Phoneme(0.13, (480, 900, 2400)),
    "O": Phoneme(0.14, (560, 850, 2400)),
    "U": Phoneme(0.10, (420, 1000, 2250)),
    "u": Phoneme(0.16, (300, 850, 2250)),
    # glides, liquids and nasals
    "j": Phoneme(0.06, (270, 2300, 3000), 0.7),
    "w": Phoneme(0.07, (300, 620, 2200), 0.7),
    "r": Phoneme(0.09, (400, 1150, 1500), 0.7),
    "l": Phoneme(0.13, (360, 1050, 2800), 0.6),
    "m": Phoneme(0.13, (250, 1000, 2200), 0.4),
    "n": Phoneme(0.13, (250, 1450, 2500), 0.4),
    # hisses, the voiced ones with a voice
    "s": Phoneme(0.16, noise=1.0, band=(3600, 300), voice=0.0),
    "z": Phoneme(0.12, (300, 1500, 2500), 0.35, 0.6, (3600, 300)),
    "S": Phoneme(0.12, noise=1.0, band=(2500, 350), voice=0.0),
    "Z": Phoneme(0.08, (300, 1700, 2400), 0.35, 0.6, (2500, 350)),
    "f": Phoneme(0.15, noise=0.3, band=(2000, 1500), voice=0.0),
    "v": Phoneme(0.08, (300, 1100, 2300), 0.4, 0.15, (2000, 1500)),
    "T": Phoneme(0.12, noise=0.25, band=(3000, 900), voice=0.0),
    # closures and bursts
    ".": Phoneme(0.05, voice=0.0),
    "b": Phoneme(0.03, (250, 700, 2200), 0.5, 0.3, (700, 400)),
    "d": Phoneme(0.03, (250, 1700, 2700), 0.5, 0.5, (3000, 500)),
    "p": Phoneme(0.04, noise=0.7, band=(800, 500), voice=0.0),
    "t": Phoneme(0.04, noise=1.2, band=(3300, 500), voice=0.0),
    "k": Phoneme(0.05, noise=1.0, band=(1800, 300), voice=0.0),
}
_SOUNDS = (
    "A:eI B:bi C:si D:di E:ii F:Ef G:dZi H:eI.tS I:aI J:dZeI K:keI L:El M:Em N:En O:oU P:pi Q:kju R:Ar S:Es T:ti "
    "U:ju V:vi W:dVb@lju X:E.ks Y:waI Z:zi 0:ziroU 1:wVn 2:tu 3:Tri 4:fOr 5:faIv 6:sI.ks 7:sEv@n 8:eI.t 9:naIn"
)
NAMES: dict[str, str] = dict(pair.split(":") for pair in _SOUNDS.split())
"""Letter or digit -> phonemes of its English name, one sign each."""


class Voice(NamedTuple):
    """How a speaker sounds."""

    pitch: float
    """Mean pitch in hertz."""
    scale: float
    """Factor on the formants: a short vocal tract has high ones."""
    rate: float
    """Factor on the tempo."""
    breath: float
    """Gain of the breath in voiced sounds."""


def voice_of(speaker: int) -> Voice:
    """The voice of a speaker, the same at every call; high voices tend to have a short vocal tract."""
    rng = np.random.default_rng([speaker, 17])
    high = rng.uniform(0, 1)
    scale = 0.9 + 0.2 * high + rng.uniform(-0.04, 0.04)
    return Voice(90 + 130 * high + rng.uniform(-10, 10), scale, rng.uniform(0.9, 1.15), rng.uniform(0, 0.04))


@dataclass(frozen=True)
class Utterance:
    """Letters and digits, spoken once by one speaker."""

    signs: tuple[str, ...]
    speaker: int
    take: int = 0
    """Seed of intonation, pauses, loudness and background noise."""

    def described(self) -> str:
        """Full description, e.g. "letter H ; letter 3 ."."""
        return " ; ".join(f"letter {sign}" for sign in self.signs) + " ."

    def split(self) -> Split | None:
        """Split of the speaker; None for several signs that this speaker does not say (see split_of)."""
        return split_of(self.speaker, " ".join(self.signs), len(self.signs))

    def performed(self) -> Sound:
        """The sound, about 0.3 s a sign."""
        rng, voice = np.random.default_rng(self.take), voice_of(self.speaker)
        return recorded([pronounced(sign, voice, rng) for sign in self.signs], (0.06, 0.1), rng)


def draw_utterance(
    rng: random.Random, split: Split, least: int = 1, most: int = 2, pool: Sequence[str] = SPOKEN
) -> Utterance:
    """An utterance of the split."""
    count = rng.randint(least, most)
    while True:
        signs = tuple(rng.choice(pool) for _ in range(count))
        found = Utterance(signs, rng.randrange(PERFORMERS), rng.getrandbits(32))
        if found.split() == split:
            return found


def pronounced(sign: str, voice: Voice, rng: np.random.Generator) -> Wave:
    """The name of a letter or digit as one voice says it once."""
    phonemes = [PHONEMES[name] for name in NAMES[sign]]
    seconds = np.array([p.seconds for p in phonemes]) * rng.uniform(0.92, 1.08, len(phonemes)) / voice.rate
    ends = np.cumsum(seconds)
    count = int(ends[-1] * RATE)
    time = np.arange(count) / RATE
    middles = ends - seconds / 2
    steady = np.maximum(seconds - GLIDE, 0) / 2
    knots = np.stack([middles - steady, middles + steady], axis=1).ravel()

    def track(values: list[float]) -> Track:
        return np.asarray(np.interp(time, knots, np.repeat(values, 2)))

    formants = np.stack([voice.scale * track([p.formants[i] for p in phonemes]) for i in range(3)])
    pitch = voice.pitch * (1 + rng.uniform(-0.12, 0.04) * time / ends[-1] + 0.05 * rng.uniform(-1, 1))
    voiced = track([p.voice for p in phonemes]) * _voiced(pitch, formants)
    noisy = np.zeros(count)
    for phoneme, start, end in zip(phonemes, ends - seconds, ends, strict=True):
        if phoneme.noise:
            noisy += phoneme.noise * _hiss(time, start, end, phoneme.band, voice.scale, rng)
    breath = voice.breath * rng.standard_normal(count) * track([p.voice for p in phonemes])
    edge = np.minimum(1, np.minimum(time, time[-1] - time) / 0.008)
    return np.asarray((voiced + 0.35 * noisy + breath) * edge, np.float32)


def _voiced(pitch: Track, formants: Track) -> Track:
    """Harmonics of the pitch, weighted by the formants; mean power about one quarter."""
    phase = (2 * np.pi * np.cumsum(pitch) / RATE).astype(np.float32)
    orders = np.arange(1, int(HIGHEST / pitch.min()) + 1, dtype=np.float32)[:, None]
    coarse = slice(None, None, STEP)
    frequencies = orders * pitch[coarse].astype(np.float32)
    gain = np.full(frequencies.shape, 0.01, np.float32)
    for formant, width, level in zip(formants, (70.0, 100.0, 150.0), (1.0, 0.7, 0.45), strict=True):
        gain += level / (1 + ((frequencies - formant[coarse].astype(np.float32)) / width) ** 2)
    gain *= frequencies < HIGHEST
    gains = np.repeat(gain, STEP, axis=1)[:, : len(pitch)]
    summed = (gains * np.sin(orders * phase)).sum(0, dtype=np.float64)
    return _of_power(summed, 0.25)


def _hiss(
    time: Track, start: float, end: float, band: tuple[float, float], scale: float, rng: np.random.Generator
) -> Track:
    """Noise in a band between two times, with soft edges; mean power one."""
    noise = banded(rng.standard_normal(len(time)), min(band[0] * scale**0.5, 0.47 * RATE), band[1])
    shape = np.clip(np.minimum(time - start, end - time) / 0.008 + 0.5, 0, 1)
    return _of_power(noise, 1.0) * shape


def _of_power(samples: Wave | Track, power: float) -> Track:
    """Samples scaled to a mean power."""
    found = float(np.mean(samples**2))
    return np.asarray(samples * (power**0.5 / (found**0.5 + 1e-6)), np.float64)
