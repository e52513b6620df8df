"""Domains: other ways to draw the same scenes, and other names for what is drawn.

A scene, its questions and its split are the same in every domain. A domain changes the pixels, or the names of
colors. Which domain a picture is of can only be seen in the picture: questions have the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from moextend.bench.world.scenes import Scene, Thing
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
DRIFT = 5
"""Number of steps of the drift."""


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


def shifted(steps: int) -> dict[str, str]:
    """Names that are shifted: every color has the name of the one `steps` places later."""
    return {color: COLORS[(place + steps) % len(COLORS)] for place, color in enumerate(COLORS)}


def drifted(share: float) -> Domain:
    """Every hue moved by a share (0..1) of the way to the next one, on a ground that gets darker by up to 120."""
    dark = round(-120 * share)
    pairs = zip(HUES, (*HUES[1:], HUES[0]), strict=True)
    palette = {color: _between(RGB[color], RGB[later], share) for color, later in pairs}
    return Domain(palette, (dark, dark, dark))


def _between(one: Color, other: Color, share: float) -> Color:
    red, green, blue = (round((1 - share) * a + share * b) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _mapped(scale: float, offset: float) -> dict[str, Color]:
    """The plain palette with `scale * value + offset` for every value."""
    found = {}
    for color, rgb in RGB.items():
        red, green, blue = (round(scale * value + offset) for value in rgb)
        found[color] = (red, green, blue)
    return found


PLAIN = Domain()
DOMAINS: dict[str, Domain] = {
    "plain": PLAIN,
    "night": Domain(_mapped(0.55, 0), (-185, -185, -165), WHITE),
    "pastel": Domain(_mapped(0.45, 140), (25, 20, 0)),
    "sketch": Domain(outlined=True),
    "negative": Domain(_mapped(-1, 255), (-195, -195, -195), WHITE),
    "dusk": drifted(0.5),
    "bright": PLAIN,
    "dim": Domain(ground=(-60, -60, -60), names=shifted(1)),
    "dark": Domain(ground=(-120, -120, -120), names=shifted(2)),
    **{f"drift-{step}": drifted((step - 1) / (DRIFT - 1)) for step in range(1, DRIFT + 1)},
}
"""Name -> domain. In `bright`, `dim` and `dark` the ground decides which names hold."""
