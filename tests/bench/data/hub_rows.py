"""Small copies of the data sets of the hub: five rows each, with the columns and types of the hub."""

import hashlib
import io
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import yaml
from PIL import Image

from moextend.bench.task import TaskSpec
from moextend.data.sounds import encode

FOLDER = Path(__file__).parents[2] / "fixtures" / "hub"

Fixture = dict[str, Any]
"""Rows of a data set on the hub: id, config, splits, features, rows."""


@cache
def fixtures() -> dict[tuple[str, str | None], Fixture]:
    """(hub id, config) -> the fixture's YAML."""
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))]
    return {(fixture["data"], fixture.get("config")): fixture for fixture in found}


def of_task(task: TaskSpec) -> Fixture:
    """The fixture of the data that a task is scored on."""
    assert task.data
    return fixtures()[task.data.path, task.data.config]


def parquet(fixture: Fixture, path: Path) -> Path:
    """The rows of a fixture as a parquet file, as `push_to_hub` writes it."""
    kinds = fixture["features"].items()
    features, stored = ({name: _feature(kind, sound) for name, kind in kinds} for sound in (_SOUND, _STORED))
    rows = [
        {name: _cell(row[name], kind, f"{i}-{name}") for name, kind in fixture["features"].items()}
        for i, row in enumerate(fixture["rows"])
    ]
    written = datasets.Dataset.from_list(rows, features=datasets.Features(stored))
    written.cast(datasets.Features(features)).to_parquet(path)
    return path


_SOUND = datasets.Audio()
_STORED = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
"""A sound as it is stored: `datasets` encodes sounds only with torchcodec."""


def _feature(kind: Any, sound: Any) -> Any:
    if isinstance(kind, list):
        return datasets.List(_feature(kind[0], sound))
    if isinstance(kind, dict):
        return {name: _feature(part, sound) for name, part in kind.items()}
    if kind == "audio":
        return sound
    return datasets.Image() if kind == "image" else datasets.Value(kind)


def _cell(value: Any, kind: Any, name: str) -> Any:
    """A cell as the hub has it: an image, written as its size, becomes a PNG, a sound, as its seconds, a WAV."""
    if isinstance(kind, list):
        return [_cell(part, kind[0], f"{name}-{i}") for i, part in enumerate(value)]
    if isinstance(kind, dict):
        return {key: _cell(value[key], part, name) for key, part in kind.items()}
    if kind == "audio":
        return {"bytes": encode(np.zeros(round(8000 * value)), 8000, where=name), "path": f"{name}.wav"}
    if kind != "image" or value is None:
        return value
    size = [int(side) for side in value.split("x")]
    buffer = io.BytesIO()
    Image.new("RGB", size, (sum(name.encode()) % 256, 80, 160)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{name}.png"}


class Hub:
    """Stands in for the hub: opens a data set by id, config and split, as `datasets.load_dataset` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str | None, str, str | None]] = []
        self.newest: dict[str, str] = {}
        """Data set -> commit of its default branch, where it is not the first one."""

    def load_dataset(
        self, name: str, config: str | None = None, *, split: str, revision: str | None = None, **options: Any
    ) -> Any:
        if name == "parquet":
            return _REAL(name, config, split=split, **options)
        self.asked.append((name, config, split, revision))
        fixture = fixtures()[name, config]
        if split not in fixture["splits"]:
            raise ValueError(f"Unknown split {split!r}. Should be one of {fixture['splits']}.")
        path = self.folder / f"{name}-{config}-{split}.parquet".replace("/", "+")
        if not path.exists():
            parquet(fixture, path)
        commit = revision or self.newest.get(name) or hashlib.sha1(name.encode()).hexdigest()
        arrow = self.folder / commit / f"{path.stem}.arrow"
        if not arrow.exists():
            read = datasets.Dataset.from_parquet(str(path), cache_dir=str(self.folder / "cache"))
            arrow.parent.mkdir(exist_ok=True)
            shutil.copy(read.cache_files[0]["filename"], arrow)
        return datasets.Dataset.from_file(str(arrow))  # lies in a folder named by the commit, as in the cache

    def split_names(self, name: str, config: str | None = None, **_: object) -> list[str]:
        splits: list[str] = fixtures()[name, config]["splits"]
        return splits


_REAL = datasets.load_dataset
