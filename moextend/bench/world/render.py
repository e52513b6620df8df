"""Renders scenes with its own masks and letters, in domains: other ways to draw the same scenes, or to name colors.

A scene, its questions and its split are the same in every domain. Which domain a picture is of can only be seen in the
picture: questions have the same words. Pixels do not depend on a drawing library."""

from __future__ import annotations

import io
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moextend.bench.world.scenes import GRID, Scene, Thing, hashed
from moextend.bench.world.words import COLORS

Color = tuple[int, int, int]

RGB: dict[str, Color] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (70, 110, 240),
    "yellow": (235, 215, 50),
    "purple": (170, 80, 205),
    "cyan": (60, 205, 215),
}
"""Colors of things in the plain domain."""
HUES = ("red", "yellow", "green", "cyan", "blue", "purple")
"""Colors in the order of their hues, which is a circle."""
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
APART = 60
"""Least distance of two colors of a drawn style, of things, ground and ink, and of two drawn grounds."""
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


@dataclass(frozen=True)
class Domain:
    """How things are drawn, and what they are called."""

    palette: Mapping[str, Color] = field(default_factory=lambda: RGB)
    """Color of a thing -> red, green and blue, 0 to 255."""
    ground: Color = (0, 0, 0)
    """Added to the grey of the background; the sum is clipped to 0 and 255."""
    ink: Color = BLACK
    """Color of letters."""
    outlined: bool = False
    """Whether only the outline of a shape, two pixels wide, is drawn."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Color -> what questions and answers call it; others have their own name."""

    def named(self, scene: Scene) -> Scene:
        """The scene with the names of this domain: what questions about its picture are asked and answered of."""
        return replace(scene, things=tuple(self._named(thing) for thing in scene.things))

    def _named(self, thing: Thing) -> Thing:
        color, shape, letter = (
            self.names.get(word, word) for word in (thing.color, thing.shape, thing.letter)
        )
        return replace(thing, color=color, shape=shape, letter=letter)


def _between(one: Color, other: Color, share: float) -> Color:
    return _color((1 - share) * a + share * b for a, b in zip(one, other, strict=True))


def styles(seed: int, count: int) -> list[Domain]:
    """Styles drawn from a seed: each channel of the palette scaled by 0.4 to 0.9, or by the negative of it."""
    rng, found = random.Random(hashed(f"styles {seed}")), list[Domain]()
    while len(found) < count:
        channels = [_affine(rng) for _ in range(3)]
        palette = {
            color: _color(
                scale * value + offset for value, (scale, offset) in zip(rgb, channels, strict=True)
            )
            for color, rgb in RGB.items()
        }
        ground, ink = _color(rng.uniform(-200, 0) for _ in range(3)), rng.choice((BLACK, WHITE))
        style = Domain(palette, ground, ink, outlined=rng.random() < 0.25)
        if _legible(style):
            found.append(style)
    return found


def rules(seed: int, count: int) -> list[Domain]:
    """Tinted grounds with names of colors drawn from a seed: a color has another name on every ground."""
    rng, found = random.Random(hashed(f"rules {seed}")), list[Domain]()
    while len(found) < count:
        ground = _color(rng.uniform(-130, 0) for _ in range(3))
        rule = Domain(ground=ground, names=dict(zip(COLORS, rng.sample(COLORS, len(COLORS)), strict=True)))
        differ = all(rule.names[color] != other.names[color] for other in found for color in COLORS)
        if differ and _legible(rule) and all(math.dist(ground, other.ground) >= APART for other in found):
            found.append(rule)
    return found


def turns(seed: int, count: int) -> list[Domain]:
    """Steps of equal length from the plain palette and ground to those of a style that is drawn from a seed."""
    for candidate in itertools.count(1):
        end = styles(seed, candidate)[-1]
        steps = [_turned(end, place / (count - 1)) for place in range(count)]
        if all(map(_legible, steps)):
            return steps
    raise AssertionError("some style is legible on the way to it")


def _turned(end: Domain, share: float) -> Domain:
    """A share (0..1) of the way from plain to the palette and ground of a style."""
    palette = {color: _between(rgb, end.palette[color], share) for color, rgb in RGB.items()}
    return Domain(palette, _color(share * value for value in end.ground))


def _legible(domain: Domain) -> bool:
    """Whether the colors of things, the ground and the ink are apart from each other."""
    ground = _color(min(max(0, 225 + added), 255) for added in domain.ground)
    colors = (*domain.palette.values(), ground, domain.ink)
    return all(math.dist(one, other) >= APART for one, other in itertools.combinations(colors, 2))


def _affine(rng: random.Random) -> tuple[float, float]:
    """Scale and offset of a map from 0..255 into itself."""
    scale = rng.uniform(0.4, 0.9)
    offset = rng.uniform(0, 255 * (1 - scale))
    return (scale, offset) if rng.random() < 0.5 else (-scale, 255 - offset)


def _color(values: Iterable[float]) -> Color:
    red, green, blue = map(round, values)
    return red, green, blue


PLAIN = Domain()
DUSK = Domain(
    {
        color: _between(RGB[color], RGB[later], 0.5)
        for color, later in zip(HUES, (*HUES[1:], HUES[0]), strict=True)
    },
    ground=(-60, -60, -60),
)
"""Every hue moved halfway to the next one, on a darker ground."""
DRAWN: dict[str, tuple[Callable[[int, int], list[Domain]], int]] = {
    "style": (styles, 4), "rule": (rules, 3), "turn": (turns, 5),
}  # fmt: skip
"""Kind of domains that are drawn from a seed -> how, and how many: `style-1` to `style-4` of each seed."""


@cache
def drawn(kind: str, place: int, seed: int) -> Domain:
    """The domain at a place, from 1, of a kind of `DRAWN`."""
    draw, count = DRAWN[kind]
    return draw(seed, count)[place - 1]


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
