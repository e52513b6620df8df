"""Marks of media in texts: `<image>`, `<audio>` and those of other modalities."""

from __future__ import annotations

import re
from functools import cache

from moextend.data.modalities import modality_types


def marks_in(text: str) -> list[str]:
    """Modalities of the marks in a text, in order."""
    return [mark[1:-1] for mark in _pattern().findall(text)] if "<" in text else []


def split_at_marks(text: str) -> list[str]:
    """Text before, between and after its marks."""
    return _pattern().split(text) if "<" in text else [text]


def stripped(text: str) -> str:
    """The text without marks, also of marks that appear when others are removed."""
    while "<" in text and _pattern().search(text):
        text = _pattern().sub("", text)
    return text


def _pattern() -> re.Pattern[str]:
    return _of(tuple(modality_types()))


@cache
def _of(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"<(?:{'|'.join(map(re.escape, names))})>")
