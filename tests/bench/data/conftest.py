"""Small data in every layout, and tasks that read it."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from moextend.bench.task import Columns, Data, TaskSpec


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade % 256, shade // 256 % 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(n: int = 6, start: int = 0) -> list[dict[str, object]]:
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


NAMED = {
    "image": "picture",
    "question": "ask",
    "answer": "reply",
    "id": "qid",
    "group": "picture",
    "kind": "sort",
}


@pytest.fixture
def make_png():
    return png


@pytest.fixture
def make_rows():
    return rows


@pytest.fixture
def pictures(tmp_path):
    """A folder `data` with images img0.png ... img5.png."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(6):
        (folder / f"img{i}.png").write_bytes(png(i))
    return folder


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / "work"
    (folder / "tasks").mkdir(parents=True)
    return folder


@pytest.fixture
def make_task(workspace):
    """A task in the workspace; columns as in `rows` by default."""

    def make(path, *, columns=None, train="train", test="test", **changes):
        data = Data(path=str(path), train=train, test=test, **changes.pop("data", {}))
        return TaskSpec(
            task="mini", version=1, kind="vqa", data=data, columns=Columns(**(NAMED | (columns or {}))),
            path=workspace / "tasks" / "mini.yaml", **changes,
        )  # fmt: skip

    return make


@pytest.fixture
def write_jsonl():
    def write(path: Path, values):
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
        return path

    return write


@pytest.fixture
def encoded():
    return base64.b64encode(png(7)).decode()


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture
def hub(hub_folder, monkeypatch):
    """The hub with five rows of every data set of the catalogue; nothing else is reached."""
    import datasets

    from moextend.data import hub as opened
    from tests.bench.data.hub_rows import Hub

    found = Hub(hub_folder)
    opened._load.cache_clear()
    monkeypatch.setattr(datasets, "load_dataset", found.load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_split_names", found.split_names)
    yield found
    opened._load.cache_clear()
