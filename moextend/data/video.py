"""Videos in a prompt: some of their frames, as images."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from moextend.data.images import MARK as IMAGE_MARK
from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

BYTES = 1 << 30
"""Maximum number of bytes of one video."""
PIXELS = 1 << 24
"""Maximum number of pixels of a frame (4K has 8.3 million)."""
SIDE = 448
"""Shorter side of a frame in pixels; larger frames are made smaller."""
FRAMES = 8
"""Default number of frames of a video."""
MOST_FRAMES = 64
_FORMATS = {
    "mov": rb"....(?:ftyp|moov|mdat|wide|free)",
    "matroska": rb"\x1aE\xdf\xa3",
    "avi": rb"RIFF....AVI ",
    "gif": rb"GIF8",
}
"""FFmpeg's name of a format -> the first bytes of its files."""


def frames(source: bytes | Path, count: int, *, where: str) -> list[Image]:
    """`count` RGB frames at equal distances from the first to the last (of one: the middle), upright.

    A video with fewer frames repeats some.

    Raises:
        InputError: PyAV is missing, or the video is not MP4, MOV, WebM, MKV, AVI or GIF, too large, or broken.
    """
    try:
        import av
    except ImportError as error:
        hint = "Run: pip install 'moextend[video]'"
        raise InputError(
            "videos are read by PyAV, which is not installed.", where=where, hint=hint
        ) from error
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            # A format that is given is not guessed: playlists, which name other files, are never read.
            kind = _format(file.read(16), where)
            file.seek(0)
            with av.open(file, format=kind, options={"protocol_whitelist": ""}) as opened:
                container: Any = opened  # for reading
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1  # each thread holds frames
                found = {
                    one.pts for one in container.demux(stream) if one.pts is not None and not one.is_discard
                }
                times, last = sorted(found), len(found) - 1
                wanted = [times[last // 2 if count == 1 else i * last // (count - 1)] for i in range(count)]
                container.seek(times[0], stream=stream)
                made: dict[int, Image] = {}
                for frame in container.decode(stream):
                    if frame.pts in wanted:
                        made[frame.pts] = _small(frame, where)
                    if len(made) == len(set(wanted)):
                        break
                return [made[time] for time in wanted]
    except InputError:
        raise
    except Exception as error:  # of FFmpeg for broken data; without a video, or without some of its frames
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120].rstrip(".")
        raise _error(f"is truncated or broken ({reason or type(error).__name__})", where) from error


def _error(what: str, where: str) -> InputError:
    return InputError(f"the video {what}.", where=where, hint="Convert it to MP4 (H.264), or remove the row.")


def _format(start: bytes, where: str) -> str:
    """FFmpeg's name of the format of a file that starts so."""
    found = next((name for name, first in _FORMATS.items() if re.match(first, start, re.DOTALL)), None)
    if found is None:
        raise _error("is broken, or not MP4, MOV, WebM, MKV, AVI or GIF", where)
    return found


def _small(frame: Any, where: str) -> Image:
    """A frame as RGB: not larger than `SIDE`, and turned as its camera was."""
    if frame.width * frame.height > PIXELS:
        raise _error(f"has frames of {frame.width:,} x {frame.height:,} pixels, more than {PIXELS:,}", where)
    scale = min(1.0, SIDE / min(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    found: Image = frame.reformat(width=width, height=height, format="rgb24").to_image()
    return found.rotate(frame.rotation, expand=True) if frame.rotation else found


@dataclass(frozen=True)
class VideoRef(MediaRef):
    """An encoded video (MP4, WebM, ...) in memory or in a file, of which a prompt has some frames (see `expanded`)."""

    modality: ClassVar[str] = "video"
    noun: ClassVar[str] = "the video"
    most: ClassVar[int] = BYTES

    def frames(self, count: int = FRAMES) -> tuple[FrameRef, ...]:
        """`count` frames at equal distances, which are not read yet. Raises InputError above `MOST_FRAMES`."""
        if not 1 <= count <= MOST_FRAMES:
            raise _error(f"is asked for {count} frames, not 1 to {MOST_FRAMES}", self.place)
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


@lru_cache(2)
def _encoded(video: VideoRef, count: int) -> tuple[bytes, ...]:
    """All wanted frames of a video as PNG: they are read one after the other, and decoded once."""
    source = video.read() if video.path is None or video.data is not None else video.file()
    return tuple(_png(frame) for frame in frames(source, count, where=video.place))


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def expanded(text: str, media: Sequence[MediaRef], frames: int = FRAMES) -> tuple[str, tuple[MediaRef, ...]]:
    """A text and its media with `frames` images instead of each video, and as many image marks instead of its mark.

    Args:
        media: in the order of the marks in the text.
    """
    mark = f"<{VideoRef.modality}>"
    return text.replace(mark, marks_for(VideoRef.modality, frames)), with_frames(media, frames)


def with_frames(media: Iterable[MediaRef], frames: int) -> tuple[MediaRef, ...]:
    """Media with `frames` images instead of each video."""
    return tuple(
        one for ref in media for one in (ref.frames(frames) if isinstance(ref, VideoRef) else (ref,))
    )


def marks_for(modality: str, frames: int) -> str:
    """Marks in the final text for the mark of a modality: of a video, those of its frames."""
    return IMAGE_MARK * frames if modality == VideoRef.modality else f"<{modality}>"


def mark_filled(ref: MediaRef) -> str | None:
    """Modality of the mark that a medium stands for: the first frame of a video for the video, the others for none."""
    if isinstance(ref, FrameRef):
        return None if ref.index else VideoRef.modality
    return ref.modality
