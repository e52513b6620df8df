"""Data with a broken image: the run goes on when it is corrected, and is refused when data that it used change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from moextend.bench.methods.lora import Lora
from moextend.bench.run import runner
from moextend.bench.run.inputs import refuse_other_inputs
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir
from moextend.bench.score import evaluate
from moextend.errors import InputError, RunConflict, RunFailed
from tests.robustness import workspace as small

SEQUENCE = """
sequence: pets
version: 1
base: {model: tiny, vision: tiny}
stages: [{task: tiny-attributes}, {task: pets}]
train: {steps: 4, batch_size: 4, learning_rate: 1.0e-3, checkpoint_steps: 1}
scoring: {limit: 4}
methods: [lora]
"""
TASK = {
    "task": "pets", "version": 1, "kind": "vqa",
    "data": {"path": "pets", "train": "train", "test": "test"},
    "columns": {"image": "image", "question": "question", "answer": "answer"},
    "prompt": "<image> Q {question} A:", "scorer": "exact@1",
}  # fmt: skip


@pytest.fixture
def pets(tmp_path: Path, small_world: None) -> Path:
    """A workspace with a task of twelve images: eight to learn from, four to score."""
    folder = tmp_path / "tasks/pets"
    folder.mkdir(parents=True)
    for split, count in (("train", 8), ("test", 4)):
        rows = []
        for i in range(count):
            picture(folder / f"{split}{i}.png", i)
            rows.append(
                {"image": f"{split}{i}.png", "question": "what color", "answer": ("red", "blue")[i % 2]}
            )
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks/pets.yaml").write_text(yaml.safe_dump(TASK))
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/pets.yaml").write_text(SEQUENCE)
    return folder


def picture(path: Path, shade: int) -> None:
    Image.new("RGB", (32, 32), (20 * shade, 0, 0)).save(path)


@pytest.fixture
def run(pets: Path) -> RunDir:
    return opened(pets.parents[1])


def opened(workspace: Path) -> RunDir:
    (config,) = resolve(Request(workspace=workspace, sequence="pets", methods=("lora",)))
    return open_run(config, workspace / "runs")


@pytest.mark.slow
def test_a_broken_image_is_corrected_and_the_run_goes_on(run: RunDir, pets: Path) -> None:
    for name in ("train5", "test2"):
        (pets / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(
        InputError, match=rf"train.jsonl:6: column .image.: {pets}/train5.png: the image is broken"
    ):
        runner.run(run.folder)
    known = [(0, "tiny-attributes"), (1, "tiny-attributes")]
    assert list(run.cells()) == known

    picture(pets / "train5.png", 5)
    with pytest.raises(RunFailed, match="3 cells could not be scored"):
        runner.run(run.folder)
    known.append((2, "tiny-attributes"))
    assert list(run.cells()) == known

    picture(pets / "train1.png", 9)
    with pytest.raises(RunConflict, match="the train data of task 'pets' changed after this run began"):
        runner.run(run.folder)  # what the second stage has learned depends on them
    picture(pets / "train1.png", 1)

    picture(pets / "test2.png", 2)
    runner.run(run.folder)
    assert list(run.cells()) == [*known, (0, "pets"), (1, "pets"), (2, "pets")]
    refuse_other_inputs(run, {})

    picture(pets / "test2.png", 9)
    with pytest.raises(RunConflict, match="the test data of task 'pets' changed after this run began"):
        runner.run(run.folder)
    with pytest.raises(RunConflict, match="the test data of task 'pets' changed after this run began"):
        refuse_other_inputs(run, {})
    (pets / "test.jsonl").unlink()
    refuse_other_inputs(run, {})  # a run that is done needs no data


@pytest.mark.slow  # a run each
@pytest.mark.parametrize(
    ("replaced", "during", "what"),
    [
        ("data/colour/train.jsonl", "learn", "the train data of task 'colour' changed"),
        pytest.param(
            "tasks/words/test.jsonl", "score_cell", "text task 'words' changed", marks=pytest.mark.long
        ),
    ],
)
def test_data_that_are_replaced_while_they_are_read_make_no_number(
    replaced: str, during: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the data from before give what they give in a run that was left alone."""
    folder = small.make(tmp_path / "w")
    path = folder / replaced
    before = path.read_bytes()
    place: Any = {"learn": Lora, "score_cell": evaluate}[during]
    original = getattr(place, during)

    def replacing(*arguments: Any, **more: Any) -> Any:
        found = original(*arguments, **more)
        if during != "score_cell" or arguments[1].task == "words":
            path.write_bytes(before.replace(b'"answer": ', b'"answer":  ').replace(b"red", b"tan"))
        return found

    (config,) = resolve(Request(workspace=folder, sequence="small", methods=("lora",)))
    run = open_run(config, folder / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(place, during, replacing)
        with pytest.raises(RunConflict, match=what):
            runner.run(run.folder)
    path.write_bytes(before)
    runner.run(run.folder)
    if during == "score_cell":
        return
    alone = open_run(config, folder / "others")
    monkeypatch.setenv("MOEXTEND_SHARING", "off")
    shutil.rmtree(folder / ".cache")
    runner.run(alone.folder)
    assert {key: cell.value for key, cell in run.cells().items()} == {
        key: cell.value for key, cell in alone.cells().items()
    }
    assert {cell.weights for cell in run.cells().values()} == {
        cell.weights for cell in alone.cells().values()
    }
