"""Videos in a prompt: some of their frames, as images."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from moextend.data import clips, images
from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.errors import InputError

MARK = "<video>"
"""Placeholder of a video in a text."""
FRAMES = 8
"""Default number of frames of a video."""
MOST_FRAMES = 64
_RECENT = 2
"""Number of videos whose frames are kept, encoded."""


@dataclass(frozen=True)
class VideoRef(MediaRef):
    """An encoded video (MP4, WebM, ...) in memory or in a file, of which a prompt has some frames (see `expanded`)."""

    modality: ClassVar[str] = "video"
    noun: ClassVar[str] = "the video"
    most: ClassVar[int] = clips.BYTES

    def frames(self, count: int = FRAMES) -> tuple[FrameRef, ...]:
        """`count` frames at equal distances, which are not read yet (see clips.frames).

        Raises:
            InputError: `count` is not 1 to `MOST_FRAMES`.
        """
        if not 1 <= count <= MOST_FRAMES:
            raise InputError(
                f"{count} frames of a video were requested.",
                where=self.place,
                hint=f"Ask for 1 to {MOST_FRAMES}.",
            )
        return tuple(
            FrameRef(where=f"{self.place}: frame {i + 1} of {count}", video=self, index=i, count=count)
            for i in range(count)
        )

    def open(self) -> list[Any]:
        """The default number of frames, decoded."""
        return [frame.open() for frame in self.frames()]


@dataclass(frozen=True)
class FrameRef(ImageRef):
    """A frame of a video as an image, which is decoded when it is read."""

    video: VideoRef | None = None
    index: int = 0
    count: int = 1

    def read(self) -> bytes:
        """The frame as PNG. Raises InputError if the video is broken."""
        assert self.video is not None, "made by VideoRef.frames"
        return _encoded(self.video, self.count)[self.index]


@lru_cache(_RECENT)
def _encoded(video: VideoRef, count: int) -> tuple[bytes, ...]:
    """All wanted frames of a video as PNG: they are read one after the other, and decoded once."""
    source = video.read() if video.path is None or video.data is not None else video.file()
    return tuple(_png(frame) for frame in clips.frames(source, count, where=video.place))


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def expanded(text: str, media: Sequence[MediaRef], frames: int = FRAMES) -> tuple[str, tuple[MediaRef, ...]]:
    """A text and its media with `frames` images instead of each video, and as many image marks instead of its mark.

    Args:
        media: in the order of the marks in the text.
    """
    return text.replace(MARK, marks_for(VideoRef.modality, frames)), with_frames(media, frames)


def with_frames(media: Iterable[MediaRef], frames: int) -> tuple[MediaRef, ...]:
    """Media with `frames` images instead of each video."""
    found: list[MediaRef] = []
    for ref in media:
        found += ref.frames(frames) if isinstance(ref, VideoRef) else [ref]
    return tuple(found)


def marks_for(modality: str, frames: int) -> str:
    """Marks in the final text for the mark of a modality: of a video, those of its frames."""
    return images.MARK * frames if modality == VideoRef.modality else f"<{modality}>"


def mark_filled(ref: MediaRef) -> str | None:
    """Modality of the mark that a medium stands for: the first frame of a video for the video, the others for none."""
    if isinstance(ref, FrameRef):
        return None if ref.index else VideoRef.modality
    return ref.modality
