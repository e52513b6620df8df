"""Long names in several lines."""

from __future__ import annotations

import re

ENDS = ":,/ "
"""Characters that a name may be broken after."""


def parts(text: str, ends: str = ENDS) -> list[str]:
    """The text in the pieces that stay together: "moextend:", "scope=all,", "routing=slot"."""
    after = re.escape(ends)
    return re.findall(f"[^{after}]*[{after}]+ *|[^{after}]+", text)


def folded(text: str, width: int, ends: str = ENDS) -> list[str]:
    """The lines of a text, broken between its parts; a part that is longer than `width` is broken at `width`."""
    lines = [""]
    for part in parts(text, ends):
        if len(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def folded_between(text: str, width: int, ends: str = ENDS) -> list[str]:
    """The same, but no part is broken: lines may be longer than `width`."""
    return folded(text, max([width, *(len(part.rstrip()) for part in parts(text, ends))]), ends)
