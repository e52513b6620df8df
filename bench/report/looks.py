"""How a method looks in figures and on the page: a colour and a marker, by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
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
FOREIGN = (BLACK, "#7A2BE2", "#999933", "#9BE0B0", "#DDCC77")
"""Colours of methods that are not the package's own."""
MARKERS = "os^DvPX<>ph*"
"""As matplotlib names them."""
DASHES: tuple[Any, ...] = (
    "-", *((0, gaps) for gaps in (
        (4, 1.5), (1, 1), (5, 1, 1, 1), (9, 1.5), (3, 1, 1, 1, 1, 1), (2, 1), (6, 1, 2, 1), (1, 2.2), (4, 4),
        (9, 1, 1, 1), (6, 1, 1, 1, 3, 1),
    )),
)  # fmt: skip
"""Lines, one a marker."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str
    filled: bool = True

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
        return {**self.points(), "linestyle": DASHES[MARKERS.index(self.marker)]}


def look(method: str, order: str = "given") -> Look:
    """The look of a method by its name alone; open markers have settings or another order of the tasks."""
    name, _, settings = method.partition(":")
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    color, marker = methods.look_of(name) or ("", MARKERS[digest // 100 % len(MARKERS)])
    filled = not settings and order == "given"
    return Look(PALETTE[color] if color else FOREIGN[digest % len(FOREIGN)], marker, filled)


def looks(shown: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Look]:
    """The looks of methods and orders in one figure, each with a marker and a dash of its own as long as there are any.

    The second of two that would have the same marker gets a free one, and a method that is not the package's own a
    free colour.
    """
    found: dict[tuple[str, str], Look] = {}
    foreign: dict[str, str] = {}
    for method, order in sorted(set(shown), key=lambda one: (":" in one[0], one[1] != "given", one)):
        own, name = look(method, order), method.partition(":")[0]
        if own.color in FOREIGN:
            own = replace(own, color=foreign.setdefault(name, _free(own.color, FOREIGN, [*foreign.values()])))
        found[method, order] = replace(
            own, marker=_free(own.marker, MARKERS, [one.marker for one in found.values()])
        )
    return found


def _free(wanted: str, known: Sequence[str], taken: Sequence[str]) -> str:
    """The wanted one if nothing has it yet, else the next one that fewest have."""
    start = known.index(wanted)
    return min((*known[start:], *known[:start]), key=taken.count)
