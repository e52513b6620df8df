"""Small data in every layout, and tasks that read it."""

import base64
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from moextend.bench.task import Columns, Data, TaskSpec
from tests.bench.data.hub_rows import Hub

Rows = list[dict[str, object]]
MakePng = Callable[..., bytes]
MakeRows = Callable[..., Rows]
MakeTask = Callable[..., TaskSpec]
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


NAMED = {
    "image": "picture",
    "question": "ask",
    "answer": "reply",
    "id": "qid",
    "group": "picture",
    "kind": "sort",
}


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
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "tasks").mkdir(parents=True)
    return folder


@pytest.fixture
def make_task(workspace: Path) -> MakeTask:
    """A task in the workspace; columns as in `rows` by default."""

    def make(
        path: Path | str,
        *,
        columns: dict[str, str | None] | None = None,
        train: str | None = "train",
        test: str = "test",
        **changes: Any,
    ) -> TaskSpec:
        data = Data(path=str(path), train=train, test=test, **changes.pop("data", {}))
        return TaskSpec(
            task="mini", version=1, kind="vqa", data=data, columns=Columns(**(NAMED | (columns or {}))),
            path=workspace / "tasks" / "mini.yaml", **changes,
        )  # fmt: skip

    return make


@pytest.fixture
def write_jsonl() -> WriteJsonl:
    def write(path: Path, values: Iterable[object]) -> Path:
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
        return path

    return write


@pytest.fixture
def encoded() -> str:
    return base64.b64encode(png(7)).decode()


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture
def hub(hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub with five rows of every data set of the catalogue; nothing else is reached."""
    import datasets

    from moextend.bench.data import hub as opened
    from tests.bench.data.hub_rows import Hub

    found = Hub(hub_folder)
    opened._load.cache_clear()
    monkeypatch.setattr(datasets, "load_dataset", found.load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_split_names", found.split_names)
    yield found
    opened._load.cache_clear()
