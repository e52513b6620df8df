"""Draws scenes with their captions and one question of every image task, and a scene in every domain."""

from __future__ import annotations

import math
import random
import textwrap
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from moextend.bench.world.domains import DOMAINS
from moextend.bench.world.questions import ASKERS, Balance
from moextend.bench.world.recital import draw_recital, perform, tell
from moextend.bench.world.render import render
from moextend.bench.world.scenes import Scene, caption, draw_scene
from moextend.bench.world.sound import RATE, TIMBRES, Melody, Note, Sound, play
from moextend.bench.world.speech import Utterance, say
from moextend.util.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ROWS, COLUMNS = 2, 4
DOMAINS_A_ROW = 7
LINE = 38
"""Maximum number of characters in a line under an image."""


SIGNS = ("A", "C", "H", "X", "3", "7")
WINDOW, STEP = 256, 32
"""Samples of a frame, and from one frame to the next."""


def draw_sheet(out: Path, seed: int) -> None:
    """Writes a PNG of eight test scenes with captions, questions and answers."""
    from matplotlib.figure import Figure

    rng = random.Random(seed)
    balance = Balance(rng)
    figure = Figure(figsize=(16, 13.4))
    grid = figure.subplots(
        2 * ROWS,
        COLUMNS,
        height_ratios=[1, 0.95] * ROWS,
        gridspec_kw={"left": 0.01, "right": 0.99, "top": 0.99, "bottom": 0.0, "hspace": 0.02, "wspace": 0.08},
    )
    for row in range(ROWS):
        for column in range(COLUMNS):
            scene = draw_scene(rng, "test", least=2)
            image, below = grid[2 * row, column], grid[2 * row + 1, column]
            image.imshow(render(scene), interpolation="nearest")
            image.set_axis_off()
            below.set_axis_off()
            below.text(0, 1, _words(scene, balance), va="top", family="monospace", fontsize=10.5)
    _write(figure, out)


def draw_domains(out: Path, seed: int) -> None:
    """Writes a PNG of one test scene of four things in every domain."""
    from matplotlib.figure import Figure

    scene = draw_scene(random.Random(seed), "test", least=4)
    rows = math.ceil(len(DOMAINS) / DOMAINS_A_ROW)
    figure = Figure(figsize=(2 * DOMAINS_A_ROW, 2.25 * rows), layout="constrained")
    places = figure.subplots(rows, DOMAINS_A_ROW).ravel()
    for place in places:
        place.set_axis_off()
    for place, (name, domain) in zip(places, DOMAINS.items(), strict=False):
        place.imshow(render(scene, domain), interpolation="nearest")
        place.set_title(name, fontsize=11)
    _write(figure, out)


def _write(figure: Figure, out: Path) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=75)
    with atomic(out) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _words(scene: Scene, balance: Balance) -> str:
    lines = [*_wrapped(caption(scene)), ""]
    for task, asker in ASKERS.items():
        for q in balance.choose(asker(scene), 1):
            lines += [f"{task}: {q.answer}", *_wrapped(q.words, "  ")]
    return "\n".join(lines)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, LINE, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


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
