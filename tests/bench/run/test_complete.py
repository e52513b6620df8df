"""A finished run is checked, and missing parts are computed again."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moextend.bench.run import runner
from moextend.bench.run import stage as stage_module
from moextend.bench.run.complete import lacks
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from moextend.errors import SpecError

SEQUENCE = """
sequence: brief
version: 1
base: {model: tiny}
stages: [{task: sums}, {task: colours}]
train: {steps: 2, batch_size: 2, learning_rate: 3.0e-3}
scoring: {batch_size: 8, limit: 8}
"""
TASK = """
task: {name}
version: 1
kind: vqa
data: {{path: {name}}}
columns: {{image: null}}
prompt: "{{question}}"
max_new_tokens: 2
"""
METHOD = "moextend:scope=all,layers=first,retention=memory,memory_tokens=20"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "registry").mkdir()
    (folder / "registry" / "brief.yaml").write_text(SEQUENCE)
    for name in ("sums", "colours"):
        data = folder / "tasks" / name
        data.mkdir(parents=True)
        (folder / "tasks" / f"{name}.yaml").write_text(TASK.format(name=name))
        for split in ("train", "test"):
            rows = [{"question": f"{i} plus {len(name)}", "answer": str(i % 3)} for i in range(12)]
            (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def whole(workspace: Path) -> RunDir:
    """A run that is done."""
    (config,) = resolve(Request(workspace=workspace, sequence="brief", methods=(METHOD,)))
    run = open_run(config, workspace / "runs")
    runner.run(run.folder)
    assert lacks(run) == [] and read_status(run.folder).state == "done"
    return run


@pytest.fixture
def run(whole: RunDir, tmp_path: Path) -> Iterator[RunDir]:
    """A copy of it, to be damaged."""
    folder = tmp_path / "brief" / whole.folder.name
    shutil.copytree(whole.folder, folder)
    yield RunDir(folder)


def first(run: RunDir, pattern: str) -> Path:
    """The first file of the pattern that is not made of another one."""
    return next(path for path in sorted(run.folder.glob(pattern)) if ".scores" not in path.name)


def flip(path: Path, place: float = 0.9) -> None:
    """Flips a bit."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Cuts a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_line(path: Path) -> None:
    """Takes the second line out."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))


def of_another_run(path: Path) -> None:
    """Makes the file, or its lines, those of a run with another id."""
    text = re.sub(r'"run": "[0-9a-f]{32}"', f'"run": "{"0" * 32}"', path.read_text())
    assert text != path.read_text()
    path.write_text(text)


def edited(path: Path) -> None:
    """Makes a number another one, by hand."""
    text = re.sub(r'("(?:tokens|colours|tiny-reading)": )[0-9.]+', r"\g<1>99", path.read_text(), count=1)
    assert text != path.read_text()
    path.write_text(text)


def nonsense(path: Path) -> None:
    """Puts something else into a file."""
    path.write_text("nonsense\n")


FILES = {
    "scores.jsonl": (Path.unlink, without_line, of_another_run, nonsense),
    "predictions/*/colours-*.jsonl": (Path.unlink, flip),
    "stages/1-*/extension.safetensors": (Path.unlink, cut, flip),
    "stages/2-*/extension.json": (Path.unlink, nonsense),
    "stages/1-*/memory.safetensors": (Path.unlink, flip),
    "stages/2-*/cost.json": (Path.unlink, of_another_run, edited),
    "stages/2-*/routing.json": (Path.unlink, cut, edited),
    "facts.json": (Path.unlink, nonsense, of_another_run, edited),
}
DAMAGES = [(pattern, damage) for pattern, damages in FILES.items() for damage in damages]


@pytest.mark.parametrize(("pattern", "damage"), DAMAGES, ids=lambda value: getattr(value, "__name__", value))
def test_every_damage_to_a_done_run_is_seen(
    run: RunDir, pattern: str, damage: Callable[[Path], None]
) -> None:
    damage(first(run, pattern))
    found = lacks(RunDir(run.folder))
    assert found, "it still counts as done"
    assert all(len(what.splitlines()) == 1 for what in found)


def damaged(run: RunDir, damages: dict[str, Callable[[Path], None]]) -> RunDir:
    for pattern, damage in damages.items():
        damage(first(run, pattern))
    return RunDir(run.folder)


def values(run: RunDir) -> dict[tuple[int, str], tuple[float, str]]:
    return {key: (cell.value, cell.sha256) for key, cell in run.cells().items()}


@pytest.mark.parametrize(
    "damages",
    [
        {
            "scores.jsonl": Path.unlink,
            "predictions/*/colours-*.jsonl": flip,
            "predictions/*/sums-*.jsonl": cut,
            "stages/2-*/cost.json": Path.unlink,
            "stages/2-*/routing.json": Path.unlink,
            "facts.json": Path.unlink,
        },
        {"stages/1-*/extension.safetensors": flip, "scores.jsonl": without_line},
    ],
    ids=["notes and answers", "weights"],
)
def test_damaged_parts_are_computed_again(
    run: RunDir, whole: RunDir, damages: dict[str, Callable[[Path], None]]
) -> None:
    broken = damaged(run, damages)
    runner.run(broken.folder)
    check_healed(run, whole)


@pytest.mark.parametrize(
    "damages",
    [
        {"scores.jsonl": nonsense, "stages/2-*/cost.json": nonsense, "stages/2-*/routing.json": cut, "facts.json": cut},
        dict.fromkeys(("facts.json", "stages/1-*/cost.json", "stages/2-*/routing.json"), of_another_run),
    ],
    ids=["damaged", "of another run"],
)  # fmt: skip
def test_damaged_records_are_refused_until_what_the_error_names_is_removed(
    run: RunDir, whole: RunDir, damages: dict[str, Callable[[Path], None]]
) -> None:
    broken = damaged(run, damages)
    for _ in damages:
        with pytest.raises(SpecError) as caught:
            runner.run(broken.folder)
        assert read_status(run.folder).state == "failed"
        assert caught.value.where and caught.value.hint and "emove the" in caught.value.hint
        named = Path(caught.value.where.partition(".jsonl:")[0])
        if f"folder {named.parent};" in caught.value.hint:
            shutil.rmtree(named.parent)
        else:
            (named if named.exists() else named.with_suffix(".jsonl")).unlink()
    runner.run(broken.folder)
    check_healed(run, whole)


def check_healed(run: RunDir, whole: RunDir) -> None:
    healed = RunDir(run.folder)
    assert lacks(healed) == [] and read_status(healed.folder).state == "done"
    assert values(healed) == values(whole)
    for path in whole.folder.glob("stages/*/*.safetensors"):
        mine = load_file(healed.folder / path.relative_to(whole.folder))
        assert all(torch.equal(mine[name], tensor) for name, tensor in load_file(path).items()), path
    for stage, cost in whole.costs().items():
        found = healed.costs()[stage]
        assert found.model_fields_set == cost.model_fields_set
        assert (found.trained_parameters, found.layers) == (cost.trained_parameters, cost.layers)
    assert healed.facts() == whole.facts()


class Stop(KeyboardInterrupt):
    """Stands for the end of the process at one place."""


MEASURED = {"seconds", "peak_rss_mb", "peak_gpu_mb", "run"}


@pytest.mark.parametrize("place", ["_write_cost", "train"])
def test_the_costs_of_an_interrupted_stage_include_all_attempts(
    workspace: Path, whole: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Stopped between the weights and their costs, and between the training and the weights."""
    monkeypatch.setenv("MOEXTEND_SHARING", "off")
    broken = open_run(whole.config, tmp_path)
    room: Any = stage_module if place == "train" else runner
    original = getattr(room, place)
    spent: list[float] = []

    def stopping(*arguments: object, **more: object) -> object:
        found = original(*arguments, **more) if place == "train" else None
        if len(spent) < 2:
            time.sleep(0.3)
            spent.append(0.3)
            raise Stop
        return original(*arguments, **more) if found is None else found

    monkeypatch.setattr(room, place, stopping)
    for _ in range(2):
        with pytest.raises(Stop):
            runner.run(broken.folder)
    runner.run(broken.folder)
    assert lacks(RunDir(broken.folder)) == []
    for stage, cost in whole.costs().items():
        found = broken.costs()[stage]
        assert found.model_dump(exclude=MEASURED) == cost.model_dump(exclude=MEASURED)
        assert found.seconds is not None and found.seconds > 0
        if place == "train" and stage == 1:
            assert found.seconds > 0.6, "the attempts before count"
    assert not list(broken.folder.glob("stages/*/spent.json"))
