"""Small data in every layout: fixtures for the tests of moextend.data and of moextend.bench.data."""

import base64
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

Rows = list[dict[str, object]]
MakePng = Callable[..., bytes]
MakeRows = Callable[..., Rows]
WriteJsonl = Callable[[Path, Iterable[object]], Path]


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade % 256, shade // 256 % 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(n: int = 6, start: int = 0) -> Rows:
    """Two questions about each image."""
    return [
        {
            "qid": f"q{start + i}",
            "picture": f"img{(start + i) // 2}.png",
            "ask": f"what is {start + i}",
            "reply": ["red", "blue", "red"][(start + i) % 3],
            "sort": ["colour", "count"][(start + i) % 2],
        }
        for i in range(n)
    ]


@pytest.fixture
def make_png() -> MakePng:
    return png


@pytest.fixture
def make_rows() -> MakeRows:
    return rows


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder `data` with images img0.png ... img5.png."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(6):
        (folder / f"img{i}.png").write_bytes(png(i))
    return folder


@pytest.fixture
def write_jsonl() -> WriteJsonl:
    def write(path: Path, values: Iterable[object]) -> Path:
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
        return path

    return write


@pytest.fixture
def encoded() -> str:
    return base64.b64encode(png(7)).decode()


def wav(pitch: int = 0, rate: int = 8000) -> bytes:
    """A sound of an eighth of a second."""
    import numpy as np

    from moextend.data.sounds import encode

    time = np.arange(rate // 8) / rate
    return encode(np.sin(2 * np.pi * (200 + 50 * pitch) * time).astype("float32"), rate, where="test")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder `sounds` with sounds s0.wav ... s5.wav."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(6):
        (folder / f"s{i}.wav").write_bytes(wav(i))
    return folder
