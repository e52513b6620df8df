"""Fingerprints of images and sounds that survive another encoding, and the near duplicates by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.data.sounds import AudioRef

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL.Image import Image

    Array = ndarray[Any, Any]

SIDE = 16
"""Rows and columns of the difference hash, and of the small copy that is compared after it."""
BITS_APART = 16
"""Bits of 256 in which the hashes of near duplicates may differ."""
LEVELS_APART = 24
"""Greatest difference of a point in the small copies of near duplicates, of 255 levels."""
RATE = 8000
"""Sampling rate in hertz at which sounds are compared."""
BANDS = (60.0, 3800.0)
"""Frequencies in hertz of the spectrogram of a sound."""
RANGE = 50.0
"""Decibels below the loudest point that a spectrogram shows."""
BLOCK = 256
"""Test media that are compared at a time."""


@dataclass(frozen=True)
class Print:
    """The fingerprint of one medium."""

    bits: bytes
    """Difference hash: whether each point of a small grey copy is darker than the next one in its row."""
    small: bytes
    """A smaller copy with its colours."""


def print_of(medium: MediaRef) -> Print | None:
    """The fingerprint of an image or a sound; None for another modality. InputError if the medium is broken."""
    if isinstance(medium, ImageRef):
        return _of_picture(medium.open())
    if isinstance(medium, AudioRef):
        return _of_picture(_spectrogram(medium))
    return None


def _of_picture(picture: Image) -> Print:
    """dHash (Krawetz, 2013) of 256 bits, and 16 x 16 pixels."""
    import numpy as np

    grey = np.asarray(picture.convert("L").resize((SIDE + 1, SIDE)), np.int16)
    small = picture.convert("RGB").resize((SIDE, SIDE))
    return Print(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), small.tobytes())


def _spectrogram(sound: AudioRef) -> Image:
    """Loudness in decibels over time and the logarithm of frequency, relative to the loudest point, as a picture."""
    import numpy as np
    from PIL import Image
    from scipy.signal import spectrogram

    samples = np.asarray(sound.open().resampled(RATE).samples, np.float64)
    window = min(256, len(samples))
    frequencies, _, power = spectrogram(samples, RATE, nperseg=window, noverlap=window // 2)
    wanted = np.geomspace(*BANDS, 64)
    rows = power[np.abs(frequencies[:, None] - wanted).argmin(0)]
    loudness = 10 * np.log10(rows / max(rows.max(), 1e-20) + 1e-20)
    shown = 255 * (1 + np.maximum(loudness, -RANGE) / RANGE)
    return Image.fromarray(shown.astype(np.uint8))


def near(test: Sequence[Print], train: Sequence[Print]) -> list[list[int]]:
    """For each test medium, the places of its near duplicates in training, the nearest first.

    At most BITS_APART of 256 bits differ, and no point of the small copies by more than LEVELS_APART levels: the hash
    alone takes drawings with much background for equal, as the mean difference does.
    """
    import numpy as np

    if not test or not train:
        return [[] for _ in test]
    hashes, others = _stacked(test, lambda one: one.bits), _stacked(train, lambda one: one.bits)
    copies, known = _stacked(test, lambda one: one.small), _stacked(train, lambda one: one.small)
    words, other_words = hashes.view(np.uint64), others.view(np.uint64)
    found: list[list[int]] = []
    for at in range(0, len(words), BLOCK):
        block = words[at : at + BLOCK]
        apart = np.zeros((len(block), len(other_words)), np.uint16)
        for word in range(block.shape[1]):
            apart += np.bitwise_count(block[:, word, None] ^ other_words[None, :, word])
        for place, row in enumerate(apart, at):
            close = np.flatnonzero(row <= BITS_APART)
            off = np.abs(known[close].astype(np.int16) - copies[place].astype(np.int16)).max(1)
            kept = close[off <= LEVELS_APART]
            found.append(kept[np.argsort(off[off <= LEVELS_APART], kind="stable")].tolist())
    return found


def _stacked(prints: Sequence[Print], part: Callable[[Print], bytes]) -> Array:
    import numpy as np

    return np.frombuffer(b"".join(map(part, prints)), np.uint8).reshape(len(prints), -1)
