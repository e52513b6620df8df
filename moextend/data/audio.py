"""Sounds as media of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from moextend.data import sounds
from moextend.data.media import MediaRef
from moextend.data.sounds import Waveform

MARK = "<audio>"
"""Placeholder of a sound in a text."""


@dataclass(frozen=True)
class AudioRef(MediaRef):
    """An encoded sound (WAV, FLAC, OGG, MP3) in memory or in a file; `open` decodes it."""

    modality: ClassVar[str] = "audio"
    noun: ClassVar[str] = "the sound"
    most: ClassVar[int] = sounds.BYTES

    @classmethod
    def of(cls, samples: Any, rate: int, where: str = "") -> AudioRef:
        """The sound of an array and its samples per second, as WAV in memory (see sounds.encode).

        Floats with a peak above 1 are divided by the peak; integers are scaled by their type.
        """
        return cls(data=sounds.encode(samples, rate, where=where or cls.modality), where=where)

    def open(self) -> Waveform:
        """The decoded mono sound (see sounds.decode). Raises InputError if it is broken."""
        return sounds.decode(self.read(), where=self.place)

    @cached_property
    def header(self) -> sounds.Header:
        """Length and rate, read from the header. Raises InputError if they are above the limits."""
        return sounds.header(self.read(), where=self.place)

    @property
    def seconds(self) -> float:
        """Length in seconds of the sound that `open` returns, read from the header."""
        return self.header.samples / self.header.rate

    def samples_at(self, rate: int) -> int:
        """Number of samples of the sound after `Waveform.resampled(rate)`, read from the header."""
        return sounds.resampled_length(self.header.samples, self.header.rate, rate)
