"""Marks of media in texts: `<image>`, `<audio>` and those of other modalities."""

from __future__ import annotations

import re

from moextend.data.modalities import modality_types


def split(text: str) -> tuple[list[str], list[str]]:
    """Pieces of a text between its marks (one more than marks), and the modality of each mark."""
    parts = _pattern().split(text)
    return parts[::2], parts[1::2]


def marks(text: str) -> list[str]:
    """Modalities of the marks of a text, in order."""
    return split(text)[1]


def without(text: str) -> str:
    """The text without marks, also of marks that appear when others are removed."""
    pattern = _pattern()
    while pattern.search(text):
        text = pattern.sub("", text)
    return text


def _pattern() -> re.Pattern[str]:
    return re.compile(f"<({'|'.join(map(re.escape, modality_types()))})>")
