import io
import wave
from pathlib import Path
from typing import Any, get_args

import pandas
import pytest

from moextend.bench.world import data
from moextend.bench.world.hearing import HEARINGS
from moextend.bench.world.questions import ASKERS
from moextend.bench.world.scenes import WORLD_VERSION, Split
from moextend.bench.world.sound import RATE
from moextend.bench.world.views import VIEWS
from moextend.bench.world.words import vocabulary
from moextend.errors import UnknownName

IMAGES = (*ASKERS, data.CAPTIONS, *VIEWS)
COLUMNS = ["question_id", "image_id", "image", "question", "answer", "kind"]


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "IMAGES", {"train": 30, "test": 20})
    monkeypatch.setattr(data, "CAPTIONED", {"train": 30, "test": 20})
    monkeypatch.setattr(data, "SOUNDS", {"train": 30, "test": 20})
    monkeypatch.setattr(data, "MATCHED", {"train": 30, "test": 20})
    monkeypatch.setattr(data, "RECITED", {"train": 30, "test": 20})


@pytest.mark.parametrize("name", IMAGES)
def test_files_rows_and_columns(name: str, tmp_path: Path) -> None:
    folder = data.materialise(name, tmp_path)
    assert folder == tmp_path / f"{name}-v{WORLD_VERSION}"
    assert sorted(path.name for path in folder.iterdir()) == ["test.parquet", "train.parquet"]
    train, test = (pandas.read_parquet(folder / f"{split}.parquet") for split in ("train", "test"))
    assert list(train.columns) == COLUMNS
    assert train.question_id.is_unique and train.image_id.nunique() == 30
    assert len(train) == (30 if name == data.CAPTIONS else 90)
    assert len(test) == test.image_id.nunique() == 20
    assert not train.duplicated(["image_id", "question"]).any()


@pytest.mark.parametrize("name", HEARINGS)
def test_files_of_sounds(name: str, tmp_path: Path) -> None:
    folder = data.materialise(name, tmp_path)
    train, test = (pandas.read_parquet(folder / f"{split}.parquet") for split in ("train", "test"))
    media = ["audio", *(["image", "text"] if name in ("match", "scenes") else [])]
    assert list(train.columns) == ["question_id", "group", *media, "question", "answer", "kind"]
    assert train.question_id.is_unique and train.group.nunique() == 30
    assert len(test) == test.group.nunique() == 20
    assert not train.duplicated(["group", "question"]).any()
    with wave.open(io.BytesIO(test.audio[0]["bytes"])) as file:
        assert file.getframerate() == RATE
        assert 0.2 < file.getnframes() / RATE < 3.5


def test_datasets_decodes_the_images(tmp_path: Path) -> None:
    import datasets

    folder = data.materialise("reading", tmp_path)
    table = datasets.Dataset.from_parquet(str(folder / "test.parquet"), cache_dir=str(tmp_path / "cache"))
    image = table.cast_column("image", datasets.Image())[0]["image"]
    assert image.size == (48, 48) and image.mode == "RGB"


def test_files_are_kept_and_made_again_the_same(tmp_path: Path) -> None:
    path = data.materialise("counting", tmp_path / "one") / "train.parquet"
    before = path.stat().st_mtime_ns
    data.materialise("counting", tmp_path / "one")
    assert path.stat().st_mtime_ns == before
    assert (
        data.materialise("counting", tmp_path / "two") / "train.parquet"
    ).read_bytes() == path.read_bytes()


def test_a_missing_split_is_made_again(tmp_path: Path) -> None:
    folder = data.materialise("counting", tmp_path)
    (folder / "test.parquet").unlink()
    data.materialise("counting", tmp_path)
    assert (folder / "test.parquet").exists()


def test_an_unknown_name_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'counting'"):
        data.materialise("countin", tmp_path)


@pytest.mark.parametrize("name", IMAGES)
def test_train_and_test_share_no_scene_and_no_image(name: str) -> None:
    contents: dict[str, set[str]] = {}
    images: dict[str, set[bytes]] = {}
    for split in get_args(Split):
        contents[split] = {scene.content() for scene, _ in data.asked_scenes(name, split)}
        images[split] = {row["image"]["bytes"] for row in data.rows(name, split)}
    assert not contents["train"] & contents["test"]
    assert not images["train"] & images["test"]


@pytest.mark.parametrize("name", data.DATASETS)
def test_all_words_are_in_the_vocabulary(name: str) -> None:
    known = set(vocabulary())
    rows: list[dict[str, Any]] = data.rows(name, "test")
    assert all(set(f"{row['question']} {row['answer']}".split()) <= known for row in rows)


def test_writers_at_once_leave_whole_files(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: data.materialise("position", tmp_path), range(4)))
    assert len(set(folders)) == 1
    assert sorted(path.name for path in folders[0].iterdir()) == ["test.parquet", "train.parquet"]
    assert len(pandas.read_parquet(folders[0] / "train.parquet")) == 90
