"""A single file of a user is divided by content: the same rows have the same test items in every form."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from moextend.bench.data import open_items
from moextend.bench.task import read_task
from moextend.cli.main import app
from moextend.errors import InputError

Rows = list[dict[str, Any]]
Item = tuple[str, str, tuple[str, ...]]
"""Question, answer, and digests of the media."""

PICTURES = 60


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (8, 8), random.Random(number).randbytes(192)).save(file, "PNG")
    return file.getvalue()


def named(start: str = "") -> Rows:
    return [
        {"image": f"{start}p{i}.png", "question": "what color", "answer": ("red", "blue", "green")[i % 3]}
        for i in range(PICTURES)
    ]


def embedded() -> Rows:
    return [{**row, "image": {"bytes": png(i), "path": None}} for i, row in enumerate(named())]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A folder of different pictures."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    for i in range(PICTURES):
        (folder / f"p{i}.png").write_bytes(png(i))
    return folder


def written(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


def add(data: Path, *options: str, kind: str = "vqa", workspace: Path) -> Result:
    workspace.mkdir(exist_ok=True)
    words = ["bench", "add-task", kind, "--data", data, "--name", "mine", "-w", workspace, *options]
    return CliRunner().invoke(app, [str(word) for word in words])


def sides(data: Path, *options: str, kind: str = "vqa") -> tuple[list[Item], list[Item]]:
    """The training and test items of a task that `add-task` makes of the data."""
    workspace = data.parent / f"of-{data.name}"
    done = add(data, *options, kind=kind, workspace=workspace)
    assert done.exit_code == 0, done.exception
    task = read_task(workspace / "tasks/mine.yaml")
    assert task.data and (task.data.train, task.data.test) == ("all[train]", "all[test]")
    train, test = (
        [
            (
                item.question,
                item.answers[0],
                tuple(sha256(medium.read()).hexdigest() for medium in item.media),
            )
            for item in open_items(task, split, workspace)
        ]
        for split in ("train", "test")
    )
    assert not {medium for item in train for medium in item[2]} & {
        medium for item in test for medium in item[2]
    }
    return train, test


@pytest.mark.slow  # seven tasks are added: 4 s
def test_the_form_order_and_place_of_data_do_not_move_test_items(drawn: Path, tmp_path: Path) -> None:
    train, test = sides(written(drawn / "a.json", named()))
    assert len(train) == len(test) == 30
    copied = tmp_path / "elsewhere" / "img"
    copied.mkdir(parents=True)
    for path in drawn.glob("*.png"):
        (copied / path.name).write_bytes(path.read_bytes())
    forms = [
        written(drawn / "absolute.json", named(f"{drawn}/")),
        written(drawn / "dotted.csv", named("./")),
        written(drawn / "reversed.jsonl", named()[::-1]),
        written(copied.parent / "b.json", named("img/")),
        written(tmp_path / "c.parquet", embedded()),
        written(tmp_path / "reversed.parquet", embedded()[::-1]),
    ]
    for path in forms:
        assert sorted(sides(path)[1]) == sorted(test), path


@pytest.mark.parametrize(("rows", "tested"), [(400, 40), (59, 29), (2, 1)])
def test_a_tenth_is_tested_but_thirty_where_there_are_enough_and_at_most_half(
    tmp_path: Path, rows: int, tested: int
) -> None:
    data = written(tmp_path / "a.json", [{"question": f"what is {i}", "answer": "red"} for i in range(rows)])
    train, test = sides(data, kind="qa")
    assert (len(train), len(test)) == (rows - tested, tested)


def together(data: Path, part: Callable[[Item], str], *options: str) -> None:
    train, test = sides(data, *options)
    assert test and not {part(item) for item in train} & {part(item) for item in test}


def test_what_shares_a_picture_or_a_group_is_on_one_side(drawn: Path) -> None:
    pairs = [
        {"image": f"p{i}.png", "question": f"{side} {i}", "answer": "red"}
        for side in ("up", "down")
        for i in range(30)
    ]
    together(written(drawn / "pairs.json", pairs), lambda item: item[0].split()[1])
    grouped = [
        {"image": f"p{i}.png", "question": f"{i // 6} {i}", "answer": "red", "scene": i // 6}
        for i in range(PICTURES)
    ]
    data = written(drawn / "grouped.json", grouped)
    together(data, lambda item: item[0].split()[0], "--columns", "group=scene")


def test_one_picture_is_refused_and_a_second_one_is_enough(drawn: Path) -> None:
    rows = [{"image": "p0.png", "question": f"what {i}", "answer": "red"} for i in range(10)]
    data = written(drawn / "one.json", rows)
    done = add(data, workspace=drawn / "w")
    assert isinstance(done.exception, InputError)
    assert "Use data with a second image, or a folder" in str(done.exception)
    assert not (drawn / "w/tasks").exists()
    train, test = sides(written(data, [*rows, {**rows[0], "image": "p1.png"}]))
    assert (len(train), len(test)) == (10, 1)
    folder = drawn / "folder"
    for split in ("train", "test"):
        written(folder / f"{split}.json", rows)
    (folder / "p0.png").write_bytes(png(0))
    assert add(folder, workspace=drawn / "w").exit_code == 0
