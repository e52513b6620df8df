"""Croissant files of sequences are valid, and mlcroissant reads the items of tasks from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moextend.bench.exporting.croissant import FILE, RAI, write
from moextend.bench.world import data
from moextend.util import content
from tests.cli.conftest import Cli, cache, cli

__all__ = ["cache", "cli"]

mlc = pytest.importorskip("mlcroissant", reason="could not import mlcroissant: pip install mlcroissant")
SEQUENCES = sorted(path.stem for path in content.package_folder("registry").glob("*.yaml"))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGES", "CAPTIONED", "SOUNDS", "MATCHED", "RECITED"):
        monkeypatch.setattr(data, name, {"train": 3, "test": 3})


def opened(path: Path) -> Any:
    """The data set as mlcroissant reads it; fails for an error or a warning."""
    found = mlc.Dataset(str(path))
    issues = found.metadata.ctx.issues
    assert not issues.errors and not issues.warnings, path
    return found


@pytest.mark.slow  # 20 files: 8 seconds
def test_every_packaged_sequence_and_the_generated_world_are_valid(tmp_path: Path) -> None:
    for name in [*SEQUENCES, "world"]:
        path = write(name, tmp_path, tmp_path)
        found = json.loads(path.read_text(encoding="utf-8"))
        opened(path)
        assert all(found[key] for key in (*RAI, "recordSet", "license", "description")), name
        assert "moextend" in found["citeAs"]


def text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def test_mlcroissant_reads_the_rows_of_a_task(tmp_path: Path) -> None:
    found = opened(write("tiny", tmp_path, tmp_path))
    read = list(found.records("tiny-reading/test"))
    rows = data.rows("reading", "test")
    assert len(read) == len(rows) > 0
    for mine, theirs in zip(rows, read, strict=True):
        for key in ("question", "answer", "image_id", "kind"):
            assert text(theirs[f"tiny-reading/test/{key}"]) == mine[key]
    pixels = np.asarray(read[0]["tiny-reading/test/image"])
    (tmp_path / "first.png").write_bytes(rows[0]["image"]["bytes"])
    assert (pixels == np.asarray(Image.open(tmp_path / "first.png"))).all()
    first = json.loads((tmp_path / "text" / "facts.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert text(next(iter(found.records("tiny-facts/test")))["tiny-facts/test/context"]) == first["context"]


def test_changed_data_are_refused(tmp_path: Path) -> None:
    path = write("tiny", tmp_path, tmp_path)
    with (tmp_path / "text" / "facts.jsonl").open("a", encoding="utf-8") as file:
        file.write("{}\n")
    with pytest.raises(mlc.GenerationError, match=r"Download\(text/facts.jsonl\)"):
        list(opened(path).records("tiny-facts/test"))


def test_own_data_are_named_where_they_are(tmp_path: Path, cli: Cli) -> None:
    for split in ("train", "test"):
        text_of = "".join(f"what color {i} ?,red\n" for i in range(3))
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.csv").write_text(f"question,answer\n{text_of}", encoding="utf-8")
    added = cli("bench", "add-task", "qa", "--data", "data", "--name", "mine", "--prompt", "Q {question} A:")
    assert added.code == 0, added.err
    assert "wrote croissant.json" in cli("bench", "list", "sequence", "--croissant", ".").out
    metadata = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert "citeAs" not in metadata, "the data of a user are not ours"
    read = list(mlc.Dataset(str(tmp_path / FILE)).records("mine/test"))
    assert [(text(one["mine/test/question"]), text(one["mine/test/answer"])) for one in read] == [
        (f"what color {i} ?", "red") for i in range(3)
    ]


def test_what_is_no_sequence_is_refused(cli: Cli) -> None:
    found = cli("bench", "list", "tinny", "--croissant", "there")
    assert found.code == 2 and "Did you mean" in found.err
    assert cli("bench", "list", "--croissant", "there").code == 2
