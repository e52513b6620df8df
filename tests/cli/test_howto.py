"""The commands of docs/adding.md on tasks and sequences work as described, except those that need the hub."""

from __future__ import annotations

import json
import re
import shlex
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.cli.conftest import Cli

PAGE = Path(__file__).parents[2] / "docs" / "adding.md"
HUB = re.compile(r"add-task chartqa|lmms-lab-encoder/|lmms:")


def commands(section: str) -> list[list[str]]:
    text = PAGE.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        shlex.split(line, comments=True)[1:]
        for block in blocks
        for line in block.splitlines()
        if not HUB.search(line)
    ]


@pytest.fixture
def own_data(tmp_path: Path) -> None:
    """The files that the page on tasks names."""
    folder = tmp_path / "data" / "colors"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / "0.png")
    rows = pd.DataFrame(
        [{"image": "0.png", "question": f"what color {i}", "answer": "red"} for i in range(20)]
    )
    rows.to_csv(folder / "train.csv", index=False)
    rows.to_csv(folder / "test.csv", index=False)
    rows[["question", "answer"]].to_json(tmp_path / "tickets.jsonl", orient="records", lines=True)
    photos = []
    for i in range(20):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(buffer := BytesIO(), "PNG")
        photos.append({"bytes": buffer.getvalue(), "path": f"{i}.png"})
    pd.DataFrame({"photo": photos, "caption": [f"shade {i}" for i in range(20)]}).to_parquet(
        tmp_path / "photos.parquet"
    )


def test_add_a_task(cli: Cli, tmp_path: Path, own_data: None) -> None:
    for words in commands("Tasks"):
        done = cli(*words)
        assert done.code == 0, f"{words}\n{done.err}"
    added = yaml.safe_load((tmp_path / "registry" / "sequence.yaml").read_text())["stages"]
    assert [stage["task"] for stage in added] == ["colors", "tickets", "photos"]
    tickets = yaml.safe_load((tmp_path / "tasks" / "tickets.yaml").read_text())
    assert tickets["data"]["test"] == "all[test]", "one file is divided by content"


def test_make_a_sequence(cli: Cli, tmp_path: Path) -> None:
    for words in commands("Sequences"):
        done = cli(*words)
        assert done.code == 0, f"{words}\n{done.err}"
    done = cli("bench", "status", "--json")
    assert {run["state"] for run in json.loads(done.out)} == {"done"}
