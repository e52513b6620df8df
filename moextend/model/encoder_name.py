"""Names of encoders that end with a number of tokens: ":4x4" of an image, ":10/s" of a sound."""

from __future__ import annotations

import re

GRID = re.compile(r"(?P<name>.+):(?P<rows>[0-9]{1,4})x(?P<columns>[0-9]{1,4})")
"""Rows and columns of an image's tokens."""
PACE = re.compile(r"(?P<name>.+):(?P<pace>\d+(?:\.\d+)?)/s")
"""Tokens of a second of sound."""


def without_tokens(name: str) -> str:
    """Name of an encoder without its number of tokens."""
    found = GRID.fullmatch(name) or PACE.fullmatch(name)
    return found["name"] if found else name
