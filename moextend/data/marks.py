"""Marks of media in texts: `<image>`, `<audio>` and those of other modalities.

A mark stands for a medium only where there are media of its modality; elsewhere it is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from moextend.data.media import MediaRef
from moextend.data.modalities import modality_types


def marks_in(text: str, names: Iterable[str] | None = None) -> list[str]:
    """Modalities of the marks in a text, in order; `names`: only marks of these modalities (None: of all)."""
    return [mark[1:-1] for mark in _pattern(names).findall(text)] if "<" in text else []


def split_at_marks(text: str, names: Iterable[str] | None = None) -> list[str]:
    """Text before, between and after its marks."""
    return _pattern(names).split(text) if "<" in text else [text]


def stripped(text: str, names: Iterable[str] | None = None) -> str:
    """The text without marks, also of marks that appear when others are removed."""
    while "<" in text and _pattern(names).search(text):
        text = _pattern(names).sub("", text)
    return text


def modalities_of(media: Iterable[MediaRef]) -> tuple[str, ...]:
    """Modalities of media, each once."""
    return tuple(dict.fromkeys(medium.modality for medium in media))


def media_at(text: str, media: Sequence[MediaRef]) -> Sequence[MediaRef]:
    """The first of the media: those at the marks of a text."""
    return media[: len(marks_in(text, modalities_of(media)))]


def _pattern(names: Iterable[str] | None) -> re.Pattern[str]:
    return _of(tuple(modality_types() if names is None else names))


@cache
def _of(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"<(?:{'|'.join(map(re.escape, names))})>" if names else "(?!)")
