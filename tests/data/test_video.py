"""Frames of videos as images; every damaged file gives exactly one type of error."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moextend.data import video
from moextend.data.conversations import prompt_text
from moextend.data.examples import Columns, Layout, Reader
from moextend.data.images import ImageRef
from moextend.data.own import own_data
from moextend.data.table import read_table
from moextend.data.video import VideoRef
from moextend.errors import InputError, SpecError
from moextend.model.loading import load_encoder
from moextend.model.messages import no_encoder

av: Any = pytest.importorskip("av", reason="needs PyAV: pip install 'moextend[video]'")

KINDS = [("mp4", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx"), ("gif", "gif")]
STEP = 4
"""Difference in grey between two frames."""


@cache
def encoded(
    kind: str = "mp4", codec: str = "libx264", count: int = 60, size: tuple[int, int] = (64, 48)
) -> bytes:
    """A video whose frame i has the grey STEP * i."""
    buffer, (width, height) = io.BytesIO(), size
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.options = {"bf": "2", "g": "20"} if codec == "libx264" else {}
        for i in range(count):
            grey = np.full((height, width, 3), STEP * i % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def greys(frames: Any) -> list[float]:
    return [float(np.asarray(frame).mean()) for frame in frames]


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_frames_are_at_equal_distances_from_the_first_to_the_last(kind: str, codec: str) -> None:
    ref = VideoRef(data=encoded(kind, codec), where="row 1")
    found = [frame.open() for frame in ref.frames(5)]
    assert greys(found) == pytest.approx([STEP * place for place in (0, 14, 29, 44, 59)], abs=5)
    assert all(frame.mode == "RGB" and frame.size == (64, 48) for frame in found)
    assert greys([frame.open() for frame in ref.frames(1)]) == pytest.approx([STEP * 29], abs=5)


def test_frames_are_images_that_are_read_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(encoded())
    frames = VideoRef(path=tmp_path / "a.mp4", where="row 4", folders=(tmp_path,)).frames(4)
    opened, real = [], video.frames

    def counted(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(video, "frames", counted)
    assert all(isinstance(frame, ImageRef) and frame.modality == "image" for frame in frames) and not opened
    assert len({frame.digest for frame in frames}) == 4 and frames[0].size() == (64, 48)
    assert len(opened) == 1, "decoded once for all frames"
    assert frames[2].digest == VideoRef(data=encoded()).frames(4)[2].digest


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Questions about two videos and a picture."""
    (tmp_path / "a.mp4").write_bytes(encoded())
    (tmp_path / "b.gif").write_bytes(encoded("gif", "gif"))
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    rows = [
        {"film": "a.mp4", "q": "what is it?", "a": "grey"},
        {"film": "b.gif", "q": "and <video>?", "a": "grey"},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({**row, "still": "p.png"}) + "\n" for row in rows * 3))
    return path


def test_a_column_of_videos_gives_images(films: Path, tmp_path: Path) -> None:
    columns = {"video": "film", "question": "q", "answer": "a"}
    rows = own_data(str(films), tmp_path / "cache", columns=columns, template="<video>\n{question}")
    assert rows[1].turns[0] == ("<image>" * video.FRAMES + "\nand ?", "grey")
    wanted = VideoRef(path=films.parent / "b.gif").frames()
    assert [medium.digest for medium in rows[1].media] == [frame.digest for frame in wanted]
    assert {medium.modality for medium in rows[0].media} == {"image"}


@pytest.mark.parametrize(
    ("prompt", "order"),
    [
        ("<image> before <video> {question}", "pfff"),
        ("<video><image>{question}", "fffp"),
        ("<image>{question}", ""),
    ],
)
def test_videos_and_images_stand_in_the_order_of_their_marks(
    films: Path, tmp_path: Path, prompt: str, order: str
) -> None:
    columns = Columns(image="still", video="film", question="q", answer="a", frames=3)
    layout = Layout(columns, prompt, where="task")
    reader = Reader(read_table([films], tmp_path), layout, films.parent)
    example = reader.example(0)
    if not order:
        with pytest.raises(SpecError, match=r"has 0 <video> marks, but .* has 1 video\."):
            prompt_text(layout, example)
        return
    assert "".join("f" if isinstance(ref, video.FrameRef) else "p" for ref in example.media) == order
    assert prompt_text(layout, example).count("<image>") == 4 and columns.modalities == ("image",)
    assert len(list(reader.media([0, 1]))) == 8


def test_a_video_itself_has_no_encoder() -> None:
    with pytest.raises(InputError, match="videos have no encoder: models take them as media"):
        load_encoder("video", "tiny")
    with pytest.raises(
        InputError, match=r"has a video, which models take as images\. .*expanded\(text, media"
    ):
        raise no_encoder(VideoRef(data=b""))


def audio_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1_024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "broken, or not MP4"),
    "text": (lambda: b"no video at all, but a text", "broken, or not MP4"),
    "a playlist": (lambda: PLAYLIST, "broken, or not MP4"),
    "no video": (audio_only, "broken"),
    "truncated MP4": (lambda: encoded()[:-400], "broken"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    data = make()
    with pytest.raises(InputError, match=f"^row 3: .*{message}") as error:
        VideoRef(data=data, where="row 3").frames(3)[2].open()
    assert error.value.hint and "\n" not in str(error.value)


def test_too_many_pixels_frames_or_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = VideoRef(data=encoded(), where="row 1")
    with pytest.raises(InputError, match=r"row 1: the video is asked for 65 frames, not 1 to 64"):
        ref.frames(65)
    monkeypatch.setattr(video, "PIXELS", 100)
    with pytest.raises(InputError, match="has frames of 64 x 48 pixels, more than 100"):
        ref.frames(7)[0].read()
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(VideoRef.most + 1)  # sparse
    with pytest.raises(InputError, match=r"large\.mp4: the video has 1,073,741,825 bytes"):
        VideoRef(path=tmp_path / "large.mp4").frames(2)[0].read()


def test_without_pyav_the_hint_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"row 1: videos are read by PyAV.* pip install 'moextend\[video\]'"):
        VideoRef(data=encoded() + b" ", where="row 1").frames(2)[0].read()
