"""Tasks that read small data."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns
from tests.bench.data.hub_rows import Hub
from tests.data.small import encoded, make_png, make_rows, pictures, recordings, write_jsonl

__all__ = ["encoded", "make_png", "make_rows", "pictures", "recordings", "write_jsonl"]

MakeTask = Callable[..., TaskSpec]

NAMED = {
    "image": "picture",
    "question": "ask",
    "answer": "reply",
    "id": "qid",
    "group": "picture",
    "kind": "sort",
}


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


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture
def hub(hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub with five rows of every data set of the catalogue; nothing else is reached."""
    import datasets

    from moextend.data import hub as opened

    found = Hub(hub_folder)
    opened._load.cache_clear()
    monkeypatch.setattr(datasets, "load_dataset", found.load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_split_names", found.split_names)
    yield found
    opened._load.cache_clear()
