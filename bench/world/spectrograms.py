"""Draws spectrograms: a scene with its recital, the timbres, and spoken letters and digits."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from moextend.bench.world.recital import draw_recital, perform, tell
from moextend.bench.world.render import render
from moextend.bench.world.sound import RATE, TIMBRES, Melody, Note, Sound, play
from moextend.bench.world.speech import Utterance, say
from moextend.util.files import atomic

SIGNS = ("A", "C", "H", "X", "3", "7")
WINDOW, STEP = 256, 32
"""Samples of a frame, and from one frame to the next."""


def draw_sounds(out: Path, seed: int) -> None:
    """Writes a PNG of a test scene with its recital, the six timbres, and six signs spoken by one speaker."""
    from matplotlib.figure import Figure

    recital = draw_recital(random.Random(seed), "test")
    figure = Figure(figsize=(16, 9.5), layout="constrained")
    grid = figure.add_gridspec(3, 6, height_ratios=[1.2, 1, 1])
    image = figure.add_subplot(grid[0, 0])
    image.imshow(render(recital.scene), interpolation="nearest")
    image.set_axis_off()
    _draw(figure.add_subplot(grid[0, 1:]), perform(recital), tell(recital))
    for column, (color, timbre) in enumerate(TIMBRES.items()):
        note = play(Melody((Note(color, "bottom", "big"),), seed, seed))
        _draw(figure.add_subplot(grid[1, column]), note, f"{color}: {timbre}")
    for column, sign in enumerate(SIGNS):
        _draw(figure.add_subplot(grid[2, column]), say(Utterance((sign,), seed, seed)), f"says {sign}")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    with atomic(out) as temporary:
        Image.open(buffer).convert("RGB").quantize(128).save(temporary, "PNG", optimize=True)


def _draw(axes: Any, sound: Sound, title: str) -> None:
    axes.specgram(sound.samples, NFFT=WINDOW, Fs=RATE, noverlap=WINDOW - STEP, vmin=-80, vmax=-25)
    axes.set_title(title, fontsize=11, family="monospace")
    axes.set_ylim(0, RATE / 2)
    axes.set_xlabel("s")
    axes.set_ylabel("Hz")
