"""Columns of data by their role."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import field_validator, model_validator

from moextend.data.modalities import modality_types
from moextend.data.video import FRAMES, MOST_FRAMES
from moextend.util.spec import Spec, unset


class Columns(Spec):
    """Name of the column for each role."""

    image: str | None = "image"
    """One column, or several with at most one image each ("image_1,image_2"). Null: no images, which is the default of
    data with another medium."""
    audio: str | None = unset(None)
    """The same for sounds."""
    video: str | None = unset(None)
    """The same for videos, of which `frames` images are taken."""
    frames: int = unset(FRAMES)
    """Number of frames of each video, at equal distances."""
    media: dict[str, str] = unset({})
    """Other modalities (of plug-ins) -> the same."""
    question: str | None = "question"
    """Null for captions."""
    answer: str = "answer"
    """A string, or a list of strings (several annotators)."""
    id: str | None = None
    """Unique per item; null: the row number is the id."""
    group: str | None = None
    """Same value for all items of a medium, which are learned as one conversation with several turns."""
    kind: str | None = None
    """Kind of question, for scores by kind, and for the majority answer where questions have no common form."""
    choices: str | None = None
    """A list, several columns ("A,B,C,D"), or an object by letter or position."""

    @model_validator(mode="before")
    @classmethod
    def _no_image_unless_named(cls, values: Any) -> Any:
        """Data with another medium have images only if `image` names their column."""
        other = isinstance(values, dict) and any(values.get(key) for key in ("audio", "video", "media"))
        return {"image": None, **values} if other else values

    @field_validator("frames")
    @classmethod
    def _some_frames(cls, frames: int) -> int:
        if not 1 <= frames <= MOST_FRAMES:
            raise ValueError(f"is not 1 to {MOST_FRAMES}")
        return frames

    @field_validator("media")
    @classmethod
    def _own_keys(cls, media: dict[str, str]) -> dict[str, str]:
        """Refuses modalities that have a key of their own."""
        if own := [name for name in media if name in ("image", "audio", "video")]:
            raise ValueError(f"write columns.{own[0]} instead of columns.media.{own[0]}")
        return media

    @property
    def by_modality(self) -> dict[str, str]:
        """Modality -> its column, or several joined by commas."""
        found = {"image": self.image, "audio": self.audio, "video": self.video, **self.media}
        return {name: column for name, column in found.items() if column is not None}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that a model gets: a video is images."""
        types = modality_types()
        known = (types.get(name) for name in self.by_modality)
        found = zip(self.by_modality, known, strict=True)
        return tuple(dict.fromkeys((kind and kind.becomes) or name for name, kind in found))

    @property
    def singles(self) -> dict[str, str]:
        """Role -> its column, for the roles with one cell per row."""
        return {
            role: name
            for role in ("question", "answer", "id", "group", "kind")
            if (name := getattr(self, role))
        }


def several(name: str, columns: Iterable[str]) -> tuple[str, ...]:
    """Columns with choices or media: one with lists, or several with one each ("A,B,C,D")."""
    return (name,) if name in columns else tuple(part.strip() for part in name.split(","))
