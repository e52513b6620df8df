"""Stages that runs share: trained once, and equal byte for byte to those of a run that trained them alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moextend.bench.methods import Method, Stage
from moextend.bench.methods.lora import Lora
from moextend.bench.methods.zero_shot import ZeroShot
from moextend.bench.plugins import PACKAGE, Source
from moextend.bench.run import runner, shared
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import StageCost
from moextend.bench.run.rundir import RunDir
from moextend.bench.store import Store
from moextend.bench.store.node import OFF
from moextend.extension import tensor_files
from tests.robustness import workspace

SEQUENCES = {
    "small": ("colour", "shade"),
    "longer": ("colour", "shade", "tint"),
    "other": ("colour", "tint"),
}

Do = Callable[..., RunDir]
"""Makes a run of a method to its end in a workspace of this name; see `do`."""


def written(folder: Path) -> Path:
    """A workspace with the sequences, each of which begins with the same task."""
    workspace.make(folder)
    columns = "{image: image, question: question, answer: answer}"
    task = workspace.TASK.format(
        name="tint", kind="vqa", columns=columns, prompt="<image> Q {question} A:", scorer="exact@1"
    )
    (folder / "tasks/tint.yaml").write_text(task)
    workspace.rows(folder, "tint", random.Random(1))
    for name, stages in SEQUENCES.items():
        tasks = ", ".join(f"{{task: {task}}}" for task in stages)
        text = workspace.SEQUENCE.replace("sequence: small", f"sequence: {name}")
        text = text.replace("[{task: colour}, {task: shade}]", f"[{tasks}]")
        (folder / "registry" / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def do(world: Path, monkeypatch: pytest.MonkeyPatch) -> Do:
    def run(method: str, sequence: str = "small", place: str = "shared", **more: Any) -> RunDir:
        folder = world / place
        if not folder.exists():
            written(folder)
        (config,) = resolve(Request(workspace=folder, sequence=sequence, methods=(method,), **more))
        found = open_run(config, folder / "runs")
        if read_status(found.folder).state != "done":
            with monkeypatch.context() as patch:
                if place == "alone":
                    patch.setenv(OFF, "off")
                runner.run(found.folder)
        return found

    return run


def content(run: RunDir) -> dict[str, bytes]:
    """Weights, files of the method, and predictions of a run, byte for byte."""
    notes = ("cost.json", "learned.json", "routing.json")
    paths = [*run.folder.glob("stages/*/*"), *run.folder.glob("predictions/**/*.jsonl")]
    return {
        path.relative_to(run.folder).as_posix(): path.read_bytes()
        for path in paths
        if path.is_file() and path.name not in notes
    }


def scores(run: RunDir) -> dict[tuple[int, str], Any]:
    own = {"seconds", "reused"}
    return {key: cell.model_dump(exclude=own) for key, cell in run.cells().items()}


def trained_by(run: RunDir) -> list[str | None]:
    return [cost.trained_by for _, cost in sorted(run.costs().items())]


def same(run: RunDir, alone: RunDir) -> None:
    """Asserts that a run that shared equals one that did not."""
    assert trained_by(alone) == [None] * len(alone.config.stages)
    assert scores(run) == scores(alone)
    assert content(run) == content(alone)
    for stage, cost in alone.costs().items():
        left = {"seconds", "peak_rss_mb", "trained_by", "alignments", "run"}
        assert run.costs()[stage].model_dump(exclude=left) == cost.model_dump(exclude=left)
    for stage, routing in alone.routing().items():
        assert run.routing()[stage].model_dump(exclude={"run"}) == routing.model_dump(exclude={"run"})


ALSO = [pytest.param(method, marks=pytest.mark.long) for method in ("full-ft", "lwf", "zero-shot")]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", *ALSO])
def test_a_longer_sequence_takes_the_stages_of_a_shorter_one(do: Do, method: str) -> None:
    first = do(method)
    run = do(method, "longer")
    expected = f"small/{first.folder.name}"
    if method == "zero-shot":
        assert trained_by(run) == [None, None, None], "nothing is trained"
    else:
        assert trained_by(run) == [expected, expected, None]
        assert [cost.seconds for cost in first.costs().values()] == [
            run.costs()[stage].seconds for stage in (1, 2)
        ], "the costs of the training"
        image = [cell for (stage, task), cell in run.cells().items() if stage == 1 and task != "tint"]
        assert all(cell.reused for cell in image), "answered once"
    same(run, do(method, "longer", "alone"))


@pytest.mark.long
@pytest.mark.parametrize(
    "method",
    [
        "moextend:scope=auto",
        "lora-per-task:task=inferred",
    ],
)
def test_tasks_that_are_learned_alone_are_shared_in_every_order(do: Do, method: str) -> None:
    do(method)
    for named, order in ((method, "reverse"), (f"individual:{method}", "given")):
        run = do(named, orders=(order,))
        assert None not in trained_by(run)
        same(run, do(named, place="alone", orders=(order,)))


@pytest.mark.parametrize("name", ["extension.safetensors", "extension.json", "learned.json", "card.json"])
@pytest.mark.parametrize("damage", ["flip", "gone"])
def test_a_damaged_node_is_not_taken(tmp_path: Path, name: str, damage: str) -> None:
    made, taken = tmp_path / "made", tmp_path / "taken" / "stages" / "1-task"
    tensor_files.save_tensors(made, {"a": torch.ones(3)}, {"task": "task"})
    StageCost(tokens=7).write(made / "learned.json")
    node = Store(tmp_path / ".cache", "runs/other").node("stages", "0")

    def take() -> StageCost | None:
        shutil.rmtree(taken, ignore_errors=True)
        taken.mkdir(parents=True)
        stage = Stage(1, "task", (), (), (), 0, taken)
        return shared.take(stage, node, lambda: {"accuracy": 1})

    node.put({path.name: path for path in made.iterdir()}, about="a stage")
    found = take()
    assert found and (found.tokens, found.notes) == (7, {"accuracy": 1})
    assert StageCost.read_of("", taken / "learned.json") == found
    assert (taken / "extension.safetensors").read_bytes() == (made / "extension.safetensors").read_bytes()
    path = node.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # a second name of the file of the run
    if damage != "gone":
        path.write_bytes(bytes(data) if damage == "flip" else bytes(data[: len(data) // 2]))
    if take() is None:
        assert not (taken / "extension.json").exists(), "not taken for a trained stage"
        assert node.card() is None or damage == "gone"
    else:  # one bit of the words about it
        assert name == "card.json" and damage == "flip"
        assert (taken / "extension.safetensors").read_bytes() == (made / "extension.safetensors").read_bytes()


class _Own(Lora):
    """A plug-in that says nothing about its training."""


class _Saying(Lora):
    @property
    def training_settings(self) -> dict[str, Any]:
        return {"rank": self.config.rank}


@pytest.mark.parametrize(
    "method, source, expected",
    [
        (Lora, PACKAGE, True),
        (ZeroShot, PACKAGE, False),
        (_Own, Source("workspace", "methods/own.py", "00"), False),
        (_Saying, Source("workspace", "methods/own.py", "00"), True),
    ],
)
def test_a_plug_in_shares_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: type[Method], source: Source, expected: bool
) -> None:
    context: Any = SimpleNamespace(
        store=Store(tmp_path), method=method(method.Config()), method_spec=SimpleNamespace(source=source)
    )
    assert shared.shares(context) is expected
    monkeypatch.setenv(OFF, "off")
    assert not shared.shares(context)
