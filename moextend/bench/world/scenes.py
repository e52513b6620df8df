"""Scenes: up to four things with known attributes on a grid of three by three cells."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

from moextend.bench.world.words import CELLS, COLORS, LETTERS, SHAPES, SIZES

WORLD_VERSION = 1
"""Incremented with every change that alters a scene, an image, a question or an answer."""

Split = Literal["train", "test"]
GRID = 3
MOST_THINGS = 4


@dataclass(frozen=True)
class Thing:
    """One coloured shape with a letter on it."""

    cell: int
    """0 to 8, row by row."""
    color: str
    shape: str
    size: str
    letter: str
    shift: tuple[int, int] = (0, 0)
    """Offset of the shape from the middle of its cell in pixels; no question asks for it."""

    @property
    def place(self) -> str:
        """The name of the cell, e.g. "top-left"."""
        return CELLS[self.cell]

    @property
    def row(self) -> int:
        """0 at the top, 2 at the bottom."""
        return self.cell // GRID

    @property
    def column(self) -> int:
        """0 at the left, 2 at the right."""
        return self.cell % GRID


@dataclass(frozen=True)
class Scene:
    """Things in the order of their cells, on a grey background."""

    things: tuple[Thing, ...]
    background: int = 225

    def split(self) -> Split:
        """Split of what questions ask for, by its hash: one in five scenes is a test scene."""
        return "test" if hashed(caption(self)) % 5 == 0 else "train"


def hashed(text: str) -> int:
    """An integer that depends only on the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def caption(scene: Scene) -> str:
    """Full description of a scene, e.g. "top-left big red circle A ; middle-center small blue cross T ."."""
    parts = [f"{t.place} {t.size} {t.color} {t.shape} {t.letter}" for t in scene.things]
    return " ; ".join(parts) + " ."


def any_scene(rng: random.Random, least: int = 1, most: int = MOST_THINGS) -> Scene:
    """A scene of either split, often with only two colors or shapes, so that equal attributes are common."""
    colors = COLORS if rng.random() < 0.5 else tuple(rng.sample(COLORS, 2))
    shapes = SHAPES if rng.random() < 0.5 else tuple(rng.sample(SHAPES, 2))
    cells = sorted(rng.sample(range(GRID * GRID), rng.randint(least, most)))
    things = tuple(
        Thing(
            cell,
            rng.choice(colors),
            rng.choice(shapes),
            rng.choice(SIZES),
            rng.choice(LETTERS),
            (rng.randint(-1, 1), rng.randint(-1, 1)),
        )
        for cell in cells
    )
    return Scene(things, rng.randint(205, 245))


def draw_scene(rng: random.Random, split: Split, least: int = 1, most: int = MOST_THINGS) -> Scene:
    """A scene of the split."""
    while True:
        scene = any_scene(rng, least, most)
        if scene.split() == split:
            return scene
