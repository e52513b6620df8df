"""How a method looks in figures and on the page: a colour and a marker, by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

PALETTE = {
    "blue": "#0072B2", "vermilion": "#D55E00", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73",
    "purple": "#CC79A7", "brown": "#4D3800", "wine": "#882255", "indigo": "#332288",
}  # fmt: skip
"""Okabe and Ito's colours without black and yellow, two of Tol's, and brown: safe with any colour vision."""
GREY, BLACK = "#777777", "#000000"
FOREIGN = (BLACK, "#44AA99", "#999933", "#CC6677")
"""Colours of methods that are not the package's own."""
MARKERS = "os^DvPX<>ph*"
"""As matplotlib names them."""
DASHES: tuple[Any, ...] = ((0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
"""Lines of methods with settings."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str
    filled: bool = True
    dash: Any = "-"

    def points(self) -> dict[str, Any]:
        """Arguments of matplotlib for markers."""
        face = self.color if self.filled else "white"
        return {
            "color": self.color,
            "marker": self.marker,
            "markerfacecolor": face,
            "markeredgecolor": self.color,
        }

    def line(self) -> dict[str, Any]:
        """Arguments of matplotlib for a line with markers."""
        return {**self.points(), "linestyle": self.dash}


NAMED = {
    "zero-shot": Look(GREY, "s"), "full-ft": Look(PALETTE["vermilion"], "v"), "lora": Look(PALETTE["orange"], "^"),
    "lora-per-task": Look(PALETTE["sky"], "D"), "replay": Look(PALETTE["green"], "s"),
    "ewc": Look(PALETTE["purple"], "P"), "lwf": Look(PALETTE["brown"], "X"), "o-lora": Look(PALETTE["wine"], "<"),
    "moe-lora": Look(PALETTE["indigo"], ">"), "moextend": Look(PALETTE["blue"], "o"),
}  # fmt: skip
"""The package's methods without settings of their own; all other looks come from the name."""


def look(method: str, order: str = "given") -> Look:
    """The look of a method by its name alone: the colour is of the name, the marker of settings and order."""
    name, _, settings = method.partition(":")
    plain = NAMED.get(name) or Look(FOREIGN[_digest(name) % len(FOREIGN)], _marker(name))
    more = settings + ("" if order == "given" else f" {order}")
    if not more:
        return plain
    return Look(plain.color, _marker(more), filled=False, dash=DASHES[_digest(more) % len(DASHES)])


def looks(methods: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Look]:
    """The looks of methods and orders in one figure: the second of two that would look alike gets a free marker."""
    found: dict[tuple[str, str], Look] = {}
    for method, order in sorted(set(methods), key=lambda one: (":" in one[0], one[1] != "given", one)):
        own = look(method, order)
        place = MARKERS.index(own.marker)
        tried = [replace(own, marker=MARKERS[(place + i) % len(MARKERS)]) for i in range(len(MARKERS))]
        taken = {(other.color, other.marker, other.filled) for other in found.values()}
        free = (one for one in tried if (one.color, one.marker, one.filled) not in taken)
        found[method, order] = next(free, own)
    return found


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _marker(text: str) -> str:
    return MARKERS[_digest(text) // 100 % len(MARKERS)]
