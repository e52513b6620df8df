"""Items from every layout of data."""

import csv
import json
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from moextend.bench.data import Item, data_digest, open_items, prompt_text
from tests.bench.data.conftest import MakeTask
from tests.data.small import MakePng, MakeRows, Rows, WriteJsonl


def columns_of(items: Iterable[Item]) -> list[tuple[object, ...]]:
    return [(item.id, item.question, item.answers, item.kind, item.group) for item in items]


def expected(values: Rows) -> list[tuple[object, ...]]:
    return [(v["qid"], v["ask"], (v["reply"],), v["sort"], v["picture"]) for v in values]


def write_parquet(path: Path, values: Rows, images: Sequence[object] | None = None) -> Path:
    import pyarrow
    from pyarrow import parquet

    table = [dict(value) for value in values]
    if images:
        for value, image in zip(table, images, strict=True):
            value["picture"] = image
    parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return path


def test_jsonl_folder_with_a_file_a_split(
    pictures: Path, make_rows: MakeRows, make_task: MakeTask, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    write_jsonl(pictures / "train.jsonl", make_rows(6))
    write_jsonl(pictures / "test.jsonl", make_rows(4, start=6))
    task = make_task(pictures)
    train, test = (open_items(task, split, workspace) for split in ("train", "test"))
    assert columns_of(train) == expected(make_rows(6))
    assert columns_of(test) == expected(make_rows(4, start=6))
    assert train[1].media[0].open().size == (4, 4)
    assert train[-1].id == "q5"
    assert [item.id for item in train[1:3]] == ["q1", "q2"]
    assert train[2].row == f"{pictures / 'train.jsonl'}:3"


@pytest.mark.parametrize("kind", ["json", "json-in-key", "json-by-id", "csv", "tsv", "parquet"])
def test_other_files(
    kind: str, pictures: Path, make_rows: MakeRows, make_task: MakeTask, workspace: Path
) -> None:
    values = make_rows(6)
    path = pictures / f"all.{kind.split('-')[0]}"
    if kind == "json":
        path.write_text(json.dumps(values))
    elif kind == "json-in-key":
        path.write_text(json.dumps({"version": "1", "data": values}))
    elif kind == "json-by-id":
        path.write_text(json.dumps({value["qid"]: value for value in values}))
    elif kind == "parquet":
        write_parquet(path, values)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(values[0]), delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(values)
    items = open_items(make_task(path, train=None, test="all"), "test", workspace)
    assert columns_of(items) == expected(values)
    assert items[3].media[0].open().size == (4, 4)


def test_parquet_with_images_of_datasets(
    tmp_path: Path, make_png: MakePng, make_rows: MakeRows, make_task: MakeTask, workspace: Path
) -> None:
    values = make_rows(6)
    images = [{"bytes": make_png(i), "path": None} for i in range(6)]
    path = write_parquet(tmp_path / "test.parquet", values, images)
    items = open_items(make_task(path, train=None, test="all", columns={"group": None}), "test", workspace)
    assert [item.media[0].read() for item in items] == [image["bytes"] for image in images]
    assert items[4].row == f"{path}: row 5"


def test_parts_of_a_single_file_share_no_image(
    pictures: Path, make_rows: MakeRows, make_task: MakeTask, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    values = [value | {"picture": f"p{i // 2}.png"} for i, value in enumerate(make_rows(400))]
    path = write_jsonl(pictures / "all.jsonl", values)
    task = make_task(path, train="all[:80%]", test="all[80%:]")
    train, test = (open_items(task, split, workspace) for split in ("train", "test"))
    assert len(train) + len(test) == 400
    assert 40 < len(test) < 130
    assert not {item.group for item in train} & {item.group for item in test}


def test_conversations(pictures: Path, make_task: MakeTask, workspace: Path) -> None:
    talk = [
        ("human", "<image>\nwhat colour?"), ("gpt", "red"), ("human", "how many?"), ("gpt", "two"),
    ]  # fmt: skip
    entries = [
        {"id": "a", "image": "img0.png", "conversations": [{"from": f, "value": v} for f, v in talk]},
        {"id": "b", "conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    ]
    path = pictures / "llava.json"
    path.write_text(json.dumps(entries))
    own = {
        "image": "image",
        "question": "question",
        "answer": "answer",
        "id": "id",
        "group": "group",
        "kind": None,
    }
    task = make_task(path, train=None, test="all", columns=own, prompt="<image>\n{question}")
    items = open_items(task, "test", workspace)
    assert columns_of(items) == [
        ("a-0", "what colour?", ("red",), None, "a"),
        ("a-1", "how many?", ("two",), None, "a"),
        ("b-0", "2 + 2?", ("4",), None, "b"),
    ]
    assert items[1].media[0].path == pictures / "img0.png"
    assert items[2].media == () and prompt_text(task, items[2]) == "2 + 2?"
    assert items[1].row == f"{path}: entry 1, turn 2"


def test_local_data_ask_no_network(
    tmp_path: Path,
    make_rows: MakeRows,
    make_png: MakePng,
    make_task: MakeTask,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    path = write_parquet(tmp_path / "t.parquet", make_rows(2), [{"bytes": make_png(), "path": None}] * 2)
    task = make_task(path, train=None, test="all", columns={"group": None})
    assert len(open_items(task, "test", workspace)) == 2
    assert (workspace / ".cache" / "rows").is_dir()


def test_a_changed_file_is_read_again(
    pictures: Path, make_rows: MakeRows, make_task: MakeTask, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    path = write_jsonl(pictures / "all.jsonl", make_rows(4))
    task = make_task(path, train=None, test="all")
    before = data_digest(task, "test", workspace)
    assert data_digest(task, "test", workspace) == before
    write_jsonl(path, make_rows(5))
    assert len(open_items(task, "test", workspace)) == 5
    assert data_digest(task, "test", workspace) != before
