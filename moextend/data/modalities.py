"""The modalities that prompts may have, and their marks in texts (`<image>`, `<audio>`, ...).

A mark stands for a medium only where there are media of its modality; elsewhere it is text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.data.sounds import AudioRef
from moextend.data.video import VideoRef
from moextend.errors import InputError

GROUP = "moextend.modalities"
"""Entry points of other packages; each names a ModalityType."""


@dataclass(frozen=True)
class ModalityType:
    """A kind of media: how it is read, and what encodes it."""

    ref: type[MediaRef]
    """Its references; they carry the name."""
    load_encoder: Callable[[str], Any] | None = None
    """Name of an encoder -> encoder (see model.modality.Encoder); None: the package's own loader of this modality."""
    becomes: str | None = None
    """Modality of the media that data give instead of it: a video becomes images. It has no encoder."""

    @property
    def name(self) -> str:
        """Its name, which is the column of its data and the word in its mark."""
        return self.ref.modality

    @property
    def mark(self) -> str:
        """Placeholder of one medium in a text."""
        return f"<{self.name}>"

    @property
    def noun(self) -> str:
        """One of its media in a sentence: "image", "sound"."""
        return self.ref.noun.removeprefix("the ")

    @property
    def plural(self) -> str:
        """Its media in a sentence: "images", "sounds"."""
        return self.noun if self.noun.endswith("s") else f"{self.noun}s"

    def counted(self, number: int) -> str:
        """A number of its media: "1 image", "2 sounds"."""
        return f"{number:,} {self.noun if number == 1 else self.plural}"


_TYPES: dict[str, ModalityType] = {
    "image": ModalityType(ImageRef),
    "audio": ModalityType(AudioRef),
    "video": ModalityType(VideoRef, becomes="image"),
}


def register_modality(found: ModalityType) -> None:
    """Makes a modality known to this process, like an entry point of the group `moextend.modalities`.

    Raises:
        InputError: its name is no word of lower-case letters, or another modality has it.
    """
    if not re.fullmatch("[a-z][a-z0-9]*", found.name):
        raise InputError(
            f"'{found.name}' is not a valid name of a modality.",
            where="register_modality",
            hint="Use lower-case letters and digits, starting with a letter.",
        )
    if _TYPES.get(found.name, found) != found:
        raise InputError(
            f"there is already a modality '{found.name}'.", where="register_modality", hint="Rename it."
        )
    _TYPES[found.name] = found


def modality_types() -> dict[str, ModalityType]:
    """Name -> modality: of the package, registered ones, and entry points of other packages."""
    return {**_others(), **_TYPES}


@cache
def _others() -> dict[str, ModalityType]:
    found = (point.load() for point in entry_points(group=GROUP))
    return {one.name: one for one in found}


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
