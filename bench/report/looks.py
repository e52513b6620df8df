"""How a method looks in figures and on the page: a colour and a marker, by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from moextend.bench import methods

PALETTE = {
    "blue": "#0072B2", "vermilion": "#D55E00", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73",
    "purple": "#CC79A7", "brown": "#4D3800", "wine": "#882255", "indigo": "#332288", "grey": "#777777",
}  # fmt: skip
"""Colours of the package's methods, safe with any colour vision: Okabe and Ito's without black and yellow, two of
Tol's, brown and grey."""
GREY, BLACK = PALETTE["grey"], "#000000"
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


def look(method: str, order: str = "given") -> Look:
    """The look of a method by its name alone: the colour is of the name, the marker of settings and order."""
    name, _, settings = method.partition(":")
    own = methods.look_of(name)
    plain = (
        Look(PALETTE[own[0]], own[1]) if own else Look(FOREIGN[_digest(name) % len(FOREIGN)], _marker(name))
    )
    more = settings + ("" if order == "given" else f" {order}")
    if not more:
        return plain
    return Look(plain.color, _marker(more), filled=False, dash=DASHES[_digest(more) % len(DASHES)])


def looks(shown: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Look]:
    """The looks of methods and orders in one figure: the second of two that would look alike gets a free marker."""
    found: dict[tuple[str, str], Look] = {}
    for method, order in sorted(set(shown), key=lambda one: (":" in one[0], one[1] != "given", one)):
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
