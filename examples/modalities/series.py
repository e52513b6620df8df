"""A modality of one's own: time series from CSV files, with a toy encoder that gives a token for every four values.

    import series, moextend
    model = moextend.load("tiny", encoders={"series": "fourier"})
    moextend.generate(model, [moextend.Prompt("<series> Rising or falling?", (series.SeriesRef(path="x.csv"),))], ...)

A package registers it for every command with an entry point of the group `moextend.modalities`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from moextend import MediaRef, ModalityType, register_modality
from moextend.errors import InputError

STEP = 4
"""Values per token."""


@dataclass(frozen=True)
class SeriesRef(MediaRef):
    """A column of numbers, one per line; the first line is its name."""

    modality: ClassVar[str] = "series"
    noun: ClassVar[str] = "the time series"

    def open(self) -> list[float]:
        """The numbers. Raises InputError if a line is no number."""
        try:
            found = [float(line) for line in self.read().decode().splitlines()[1:]]
        except ValueError as error:
            raise self._broken(str(error)) from error
        if not found:
            raise self._broken("it has no numbers")
        return found

    def _broken(self, why: str) -> InputError:
        return InputError(
            f"{self.noun} is broken ({why}).", where=self.place, hint="Write one number a line."
        )


class Fourier(nn.Module):
    """Sines and cosines of the mean of four values."""

    width, tokens = 8, None
    facts: ClassVar[dict[str, Any]] = {"name": "fourier"}

    def tokens_of(self, series: SeriesRef) -> int:
        """A token for every four values that were begun."""
        return -(-len(series.open()) // STEP)

    def forward(self, media: Sequence[SeriesRef]) -> list[Tensor]:
        """Features [tokens, 8] of each series."""
        means = [torch.stack([part.mean() for part in torch.tensor(one.open()).split(STEP)]) for one in media]
        angles = [mean[:, None] * 2.0 ** torch.arange(4) for mean in means]
        return [torch.cat([angle.sin(), angle.cos()], 1) for angle in angles]

    def fingerprint(self) -> str:
        """Nothing is learned, and nothing can be set."""
        return "fourier1"


SERIES = ModalityType(ref=SeriesRef, load_encoder=lambda name: Fourier())
register_modality(SERIES)
