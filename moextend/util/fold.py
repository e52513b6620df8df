"""Wraps long names."""

from __future__ import annotations

ENDS = ":,/ _-"
"""Characters after which a name may be wrapped."""


def parts(text: str, ends: str = ENDS) -> list[str]:
    """Parts of the text that stay together: "moextend:", "scope=all,", "routing=slot"."""
    found = [""]
    for place, char in enumerate(text):
        found[-1] += char
        if _breaks(text, place, ends):
            found.append("")
    return found


def _breaks(text: str, place: int, ends: str) -> bool:
    """Whether the text may be wrapped after this character. The sign of a number stays with it."""
    char, after = text[place], text[place + 1 : place + 2]
    if char == " " and " " not in ends:  # then a space goes with what is before it
        char = text[:place].rstrip()[-1:]
    if not char or char not in ends or not after or after in f"{ends} ":
        return False
    return char != "-" or (text[place - 1].isalnum() and not after.isdigit() and place > 0)


def folded(text: str, width: int, ends: str = ENDS) -> list[str]:
    """Lines of a text, wrapped between its parts; a part longer than `width` is split at `width`."""
    lines = [""]
    for part in parts(text, ends):
        if len(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def folded_between(text: str, width: int, ends: str = ENDS) -> list[str]:
    """Like `folded`, but no part is split: lines may be longer than `width`."""
    return folded(text, max([width, *(len(part.rstrip()) for part in parts(text, ends))]), ends)
