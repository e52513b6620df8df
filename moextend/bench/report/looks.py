"""How methods are shown: by short names and those of papers, and in figures by a colour and a marker."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moextend.bench import methods
from moextend.bench.methods import TITLES

PALETTE = {
    "blue": "#0072B2", "vermilion": "#D55E00", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73",
    "purple": "#CC79A7", "brown": "#4D3800", "wine": "#882255", "indigo": "#332288", "lilac": "#9988FF",
    "ochre": "#886633", "maroon": "#501020", "night": "#201040", "grey": "#777777",
}  # fmt: skip
"""Colours of the package's methods, safe with any colour vision: Okabe and Ito's without black and yellow, two of
Tol's, brown, lilac, ochre, maroon, night blue and grey."""
GREY, BLACK = PALETTE["grey"], "#000000"
FOREIGN = (BLACK, "#7A2BE2", "#999933", "#9BE0B0", "#DDCC77")
"""Colours of methods that are not the package's own."""
MARKERS = "os^DvPX<>ph*dH"
"""As matplotlib names them."""
DASHES: tuple[Any, ...] = (
    "-", *((0, gaps) for gaps in (
        (4, 1.5), (1, 1), (5, 1, 1, 1), (9, 1.5), (3, 1, 1, 1, 1, 1), (2, 1), (6, 1, 2, 1), (1, 2.2), (4, 4),
        (9, 1, 1, 1), (6, 1, 1, 1, 3, 1), (3, 3), (12, 2, 1, 2),
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


def paper_names(ran: Iterable[str]) -> dict[str, str]:
    """Method -> its short name, that of the method itself as in papers: "MoExtend own" of `moextend:scope=own`."""
    known = list(ran)
    short = {method: method for method in known} | short_names(known)
    found = {}
    for method, name in short.items():
        own = method.partition(":")[0]
        found[method] = TITLES.get(own, own) + name.removeprefix(own).replace("_", " ")
    return {method: name for method, name in found.items() if name != method}


def short_names(ran: Iterable[str]) -> dict[str, str]:
    """Method -> its name with as few settings as tell it from the others: of those that are words, only the values.

    Of `moextend:scope=own` and `moextend:scope=all,layers=0` they are "moextend own" and "moextend all".
    """
    known = list(ran)
    telling = {method: _telling(method, known) for method in known}
    plain = {method: f"{name} {','.join(parts)}".strip() for method, (name, parts) in telling.items()}
    words = {
        method: f"{name} {','.join(map(_word, parts))}".strip() for method, (name, parts) in telling.items()
    }
    count = Counter(words.values())
    short = {method: word if count[word] == 1 else plain[method] for method, word in words.items()}
    return {method: name for method, name in short.items() if name != method}


def explained(names: Mapping[str, str]) -> list[str]:
    """A note that says which methods short names stand for; [] where there is none."""
    return (
        [f"Short names: {'; '.join(f'{name} is {method}' for method, name in names.items())}."]
        if names
        else []
    )


def _telling(method: str, known: Iterable[str]) -> tuple[str, list[str]]:
    """The name of a method, and its first settings up to the one that no other of the methods has there."""
    name, _, settings = method.partition(":")
    parts = settings.split(",") if settings else []
    for count in range(len(parts)):
        same = f"{name}:{','.join(parts[:count])}," if count else f"{name}:"
        if not any(f"{other},".startswith(same) or f"{other}:" == same for other in known if other != method):
            return name, parts[:count]
    return name, parts


def _word(setting: str) -> str:
    value = setting.partition("=")[2]
    return value if value.isalpha() and value not in ("true", "false") else setting


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with methods and tasks as they are shown; commands, runs and longer names that hold one stay."""
    if not names:
        return text
    longest_first = sorted(names, key=len, reverse=True)
    pattern = rf"(?<![\w:=,+./-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w=+/-]|[.,:]\w| bench\b)"
    return re.sub(pattern, lambda found: names[found[0]], text)
