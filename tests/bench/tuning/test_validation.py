"""Validation items are disjoint from the training items of a trial, and from all test items."""

from pathlib import Path

import pytest

from moextend.bench.data import open_items
from moextend.bench.data.source import Split
from moextend.bench.task import TaskSpec, find_task
from moextend.bench.tuning.trials import held_out_task
from moextend.errors import InputError
from tests.bench.data.conftest import (
    MakeTask,
    hub,
    hub_folder,
    make_png,
    make_task,
    pictures,
    workspace,
    write_jsonl,
)
from tests.data.small import MakePng, WriteJsonl

__all__ = ["hub", "hub_folder", "make_png", "make_task", "pictures", "workspace", "write_jsonl"]


def rows_of(task: TaskSpec, split: Split, workspace: Path) -> set[tuple[str, ...]]:
    """Place in the data, question and digests of the media of each item."""
    return {
        (item.row, item.question, *(ref.digest for ref in item.media))
        for item in open_items(task, split, workspace, strict=False)
    }


def media_of(task: TaskSpec, split: Split, workspace: Path) -> set[str]:
    return {ref.digest for ref in open_items(task, split, workspace, strict=False).media_refs()}


def check(task: TaskSpec, percent: int, workspace: Path) -> None:
    """Training and validation items of a trial are the training items, without overlap, and no test item."""
    held = held_out_task(task, percent, workspace)
    learn, validation = (rows_of(held, split, workspace) for split in ("train", "test"))
    assert learn and validation
    assert not learn & validation
    assert learn | validation == rows_of(task, "train", workspace)
    assert not (learn | validation) & rows_of(task, "test", workspace)
    assert not media_of(held, "train", workspace) & media_of(held, "test", workspace)


def test_of_generated_data(small_world: None, workspace: Path) -> None:
    for name in ("tiny-attributes", "tiny-counting"):
        task = find_task(name, workspace)
        check(task, 10, workspace)
        held = held_out_task(task, 10, workspace)
        assert not media_of(held, "test", workspace) & media_of(task, "test", workspace)
        assert held.data and (held.data.train, held.data.test) == ("train[0%:90%]", "train[90%:100%]")


@pytest.mark.parametrize("split", [("all[:60%]", "all[60%:]"), ("train", "test")])
def test_of_files(
    split: tuple[str, str], tmp_path: Path, make_task: MakeTask, make_png: MakePng, write_jsonl: WriteJsonl,
    workspace: Path,
) -> None:  # fmt: skip
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i}.png").write_bytes(make_png(i))
    rows = [
        {"qid": f"{i}-{j}", "picture": f"{i}.png", "ask": f"{j}?", "reply": "a", "sort": "x"}
        for i in range(60)
        for j in range(2)
    ]
    parts = {"all": rows} if split[0] != "train" else {"train": rows[:80], "test": rows[80:]}
    for name, part in parts.items():
        write_jsonl(folder / f"{name}.jsonl", part)
    path = folder / "all.jsonl" if split[0] != "train" else folder
    check(make_task(path, train=split[0], test=split[1]), 30, workspace)


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        ("all", "all", "overlap"),
        ("all[:60%]", "all[50%:]", "overlap"),
        ("all[4%:5%]", "all[5%:]", "too small"),
    ],
)
def test_data_without_validation_items_are_refused(
    train: str,
    test: str,
    says: str,
    tmp_path: Path,
    make_task: MakeTask,
    write_jsonl: WriteJsonl,
    workspace: Path,
) -> None:
    path = write_jsonl(tmp_path / "all.jsonl", [{"ask": "?", "reply": "a"}])
    with pytest.raises(InputError, match=says):
        held_out_task(make_task(path, train=train, test=test), 10, workspace)


def test_equal_files_under_two_names_are_refused(
    tmp_path: Path, make_task: MakeTask, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "test"):
        write_jsonl(folder / f"{name}.jsonl", [{"ask": "?", "reply": "a"}])
    plain = make_task(folder, columns={"image": None, "id": None, "group": None, "kind": None})
    with pytest.raises(InputError, match="100% of the test items of 'mini' are in its training data"):
        held_out_task(plain, 10, workspace)
