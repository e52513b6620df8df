"""Renders scenes with its own masks and letters, so that pixels do not depend on a drawing library."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moextend.bench.world.domains import PLAIN, Domain
from moextend.bench.world.scenes import GRID, Scene, Thing

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

CELL = 16
SIDE = CELL * GRID
RADIUS = {"small": 5, "big": 7}
LINE = 2
"""Width of an outline in pixels."""
GLYPHS = {
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "C": ".#### #.... #.... #.... #.... #.... .####",
    "E": "##### #.... #.... ####. #.... #.... #####",
    "H": "#...# #...# #...# ##### #...# #...# #...#",
    "K": "#...# #..#. #.#.. ##... #.#.. #..#. #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "X": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
}
"""Letters of five by seven pixels, row by row."""


@cache
def shape_mask(shape: str, radius: int, center: tuple[int, int]) -> Mask:
    """Mask of a shape; `center` is (x, y)."""
    ys, xs = np.mgrid[0:SIDE, 0:SIDE]
    x, y = xs - center[0], ys - center[1]
    inside: Mask = (abs(x) <= radius) & (abs(y) <= radius)
    match shape:
        case "circle":
            inside &= x * x + y * y <= radius * radius + radius
        case "triangle":
            inside &= 2 * abs(x) <= y + radius
        case "cross":
            arm = radius // 2
            inside &= (abs(x) <= arm) | (abs(y) <= arm)
    return inside


@cache
def glyph_mask(letter: str) -> Mask:
    """Mask of a letter: seven rows of five."""
    return np.array([[dot == "#" for dot in row] for row in GLYPHS[letter].split()])


def _draw(pixels: Pixels, thing: Thing, domain: Domain) -> None:
    x, y = CELL * thing.column + CELL // 2, CELL * thing.row + CELL // 2
    center = (x + thing.shift[0], y + thing.shift[1])
    mask = shape_mask(thing.shape, RADIUS[thing.size], center)
    if domain.outlined:
        mask = mask & ~shape_mask(thing.shape, RADIUS[thing.size] - LINE, center)
    pixels[mask] = domain.palette[thing.color]
    pixels[y - 3 : y + 4, x - 2 : x + 3][glyph_mask(thing.letter)] = domain.ink


def render(scene: Scene, domain: Domain = PLAIN) -> Pixels:
    """The image of a scene in a domain, (48, 48, 3)."""
    ground = np.clip(scene.background + np.array(domain.ground), 0, 255)
    pixels = np.full((SIDE, SIDE, 3), ground, dtype=np.uint8)
    for thing in scene.things:
        _draw(pixels, thing, domain)
    return pixels


def png(scene: Scene, domain: Domain = PLAIN) -> bytes:
    """The image of a scene as an encoded PNG."""
    buffer = io.BytesIO()
    Image.fromarray(render(scene, domain)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
