"""Data that the user puts in place, images in a separate table, and LLaVA's evaluation files."""

from pathlib import Path
from typing import Any

import pytest

from moextend.bench.data import data_digest, open_items
from moextend.bench.task import Join, TaskSpec
from moextend.errors import InputError, SpecError
from tests.bench.data.conftest import MakeTask
from tests.data.small import MakePng, MakeRows, WriteJsonl


def test_data_put_in_place_by_hand_lies_in_the_workspace(
    workspace: Path, make_task: MakeTask, make_png: MakePng, make_rows: MakeRows, write_jsonl: WriteJsonl
) -> None:
    task = make_task(
        "data:suite/Set", data={"images": "data:suite", "prepare": "Download it from the authors."}
    )
    with pytest.raises(
        InputError, match=r"no file or folder .*data/suite/Set. Download it from the authors."
    ):
        open_items(task, "test", workspace)
    folder = workspace / "data" / "suite" / "Set"
    folder.mkdir(parents=True)
    write_jsonl(folder / "test.jsonl", make_rows(2))
    (folder.parent / "img0.png").write_bytes(make_png(3))
    items = open_items(task, "test", workspace)
    assert items[0].media[0].read() == make_png(3), "found from the folder of images"


@pytest.fixture
def gqa(workspace: Path, make_task: MakeTask, make_png: MakePng) -> TaskSpec:
    """Questions and images in two configs of one data set, as the hub's GQA has them."""
    from datasets import Dataset, Features, Image, Value

    folder = workspace / "data" / "gqa"
    (folder / "instructions").mkdir(parents=True)
    (folder / "images").mkdir()
    rows = [{"qid": f"q{i}", "imageId": f"n{i // 2}", "ask": "?", "reply": "a"} for i in range(4)]
    Dataset.from_list(rows).to_parquet(folder / "instructions" / "testdev-00000-of-00001.parquet")
    images = [{"id": f"n{i}", "image": {"bytes": make_png(i), "path": None}} for i in range(2)]
    features = Features({"id": Value("string"), "image": Image()})
    Dataset.from_list(images, features=features).to_parquet(
        folder / "images" / "testdev-00000-of-00001.parquet"
    )
    columns = {"image": "image", "group": "imageId", "kind": None}
    data = {"config": "instructions", "join": Join(config="images", split="testdev", by="imageId")}
    return make_task("data:gqa", columns=columns, train=None, test="testdev", data=data)


def test_images_are_looked_up_in_their_own_table(gqa: TaskSpec, workspace: Path, make_png: MakePng) -> None:
    items = open_items(gqa, "test", workspace)
    assert [item.media[0].read() for item in items] == [make_png(0), make_png(0), make_png(1), make_png(1)]
    assert [item.group for item in items] == ["n0", "n0", "n1", "n1"]
    assert data_digest(gqa, "test", workspace)


def test_an_image_that_is_not_there_is_named(gqa: TaskSpec, workspace: Path) -> None:
    data = gqa.data
    assert data

    def joined(**changes: Any) -> TaskSpec:
        join = Join(**{"config": "images", "split": "testdev", "by": "imageId", **changes})
        return gqa.model_copy(update={"data": data.model_copy(update={"join": join})})

    with pytest.raises(InputError, match=r"row 1: column 'qid': there is no image 'q0' in .*images"):
        open_items(joined(by="qid"), "test", workspace)[0]
    with pytest.raises(SpecError, match=r"data.join.id: no column 'name' in .*images"):
        open_items(joined(id="name"), "test", workspace)
    with pytest.raises(SpecError, match=r"data.join.by: no column 'imageid' in .*Did you mean 'imageId'"):
        open_items(joined(by="imageid"), "test", workspace)
