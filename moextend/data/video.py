"""Videos in a prompt: some of their frames, as images."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from moextend.data.images import MARK as IMAGE_MARK
from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

NAMES = "MP4, MOV, WebM, MKV, AVI or GIF"
BYTES = 1 << 30
"""Maximum number of bytes of one video."""
MOST_IN_A_FILE = 1 << 20
"""Maximum number of frames of one video: 9.7 hours at 30 a second."""
PIXELS = 1 << 24
"""Maximum number of pixels of a frame (4K has 8.3 million)."""
SIDE = 448
"""Shorter side of a frame in pixels; larger frames are made smaller."""
FRAMES = 8
"""Default number of frames of a video."""
MOST_FRAMES = 64
_REPLACE = "Replace the video or remove the row."


def frames(source: bytes | Path, count: int, *, where: str) -> list[Image]:
    """`count` RGB frames at equal distances from the first to the last (of one: the middle), upright.

    A video with fewer frames repeats some.

    Raises:
        InputError: PyAV is missing, or the video is not one of the formats of `NAMES`, above a limit of this module,
            empty, truncated or broken.
    """
    with _opened(source, where) as (container, stream):
        times, keys = _packets(container, stream, where)
        last = len(times) - 1
        places = [last // 2] if count == 1 else [i * last // (count - 1) for i in range(count)]
        wanted = [times[place] for place in places]
        made = dict(_decoded(container, stream, keys or times[:1], sorted(set(wanted)), where))
        return [made[time] for time in wanted]


def _error(what: str, where: str, hint: str = _REPLACE) -> InputError:
    return InputError(f"the video {what}.", where=where, hint=hint)


@contextmanager
def _opened(source: bytes | Path, where: str) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise InputError(
            "videos are read by PyAV, which is not installed.",
            where=where,
            hint="Run: pip install 'moextend[video]'",
        ) from error
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            kind = _kind(file, where)
            # A format that is given is not guessed: playlists, which name other files, are never read.
            with av.open(file, format=kind, options={"protocol_whitelist": ""}) as container:
                if not container.streams.video:
                    raise _error("holds no frames", where)
                context = container.streams.video[0].codec_context
                context.thread_count = 1  # each thread holds frames
                _check_size(context.width, context.height, where)
                yield container, container.streams.video[0]
    except InputError:
        raise
    except Exception as error:  # of FFmpeg, for broken data
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120].rstrip(".")
        raise _error(f"is broken ({reason or type(error).__name__})", where) from error


def _kind(file: BinaryIO, where: str) -> str:
    """FFmpeg's name of the format, by the first bytes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(16)
    file.seek(0)
    if size > BYTES:
        raise _error(f"has more than {BYTES:,} bytes", where, "Reduce its size.")
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "mov"
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return "avi"
    for name, mark in (("matroska", b"\x1aE\xdf\xa3"), ("gif", b"GIF8")):
        if start.startswith(mark):
            return name
    raise _error(f"is broken, or not {NAMES}", where, "Convert it to MP4 (H.264).")


def _check_size(width: int, height: int, where: str) -> None:
    if not 0 < width * height <= PIXELS:
        raise _error(f"has {width:,} x {height:,} pixels; 1 to {PIXELS:,} are supported", where)


def _packets(container: Any, stream: Any, where: str) -> tuple[list[int], list[int]]:
    """Times of a video's frames, in the order of their display, and of its key frames."""
    times, keys = [], []
    for packet in container.demux(stream):
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or packet.size == 0 or packet.is_discard:  # the end, or outside the edited video
            continue
        times.append(time)
        if packet.is_keyframe:
            keys.append(time)
        if len(times) > MOST_IN_A_FILE:
            raise _error(f"has more than {MOST_IN_A_FILE:,} frames", where, "Cut the video.")
    if not times:
        raise _error("has no frames", where)
    if len(times) < 0.9 * stream.frames:  # 0: the header states no number
        raise _error("is truncated", where)
    return sorted(set(times)), sorted(keys)


def _decoded(
    container: Any, stream: Any, keys: Sequence[int], wanted: Sequence[int], where: str
) -> Iterator[tuple[int, Image]]:
    """Wanted time (ascending) -> its frame. Nothing is decoded twice: a jump goes forward to a key frame only."""
    decoding: Iterator[Any] = iter(())
    now: int | None = None
    for time in wanted:
        key = keys[max(0, bisect_right(keys, time) - 1)]
        if now is None or key > now:
            container.seek(key, stream=stream, backward=True)
            decoding = container.decode(stream)
        frame = next((each for each in decoding if each.pts is not None and each.pts >= time), None)
        if frame is None:
            raise _error("is truncated or broken", where)
        now = frame.pts
        yield time, _small(frame, where)


def _small(frame: Any, where: str) -> Image:
    """A frame as RGB: not larger than `SIDE`, and turned as its camera was."""
    _check_size(frame.width, frame.height, where)  # streams may change their size
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
            raise _error(f"is asked for {count} frames", self.place, f"Ask for 1 to {MOST_FRAMES}.")
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
