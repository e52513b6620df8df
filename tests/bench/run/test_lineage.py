"""What a run made after other weights, or another base, is not mixed with what it makes now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from moextend.bench.run import runner
from moextend.bench.run import stage as stage_module
from moextend.bench.run.complete import lacks
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir
from moextend.errors import RunConflict
from moextend.util import content
from tests.robustness import workspace as small


def opened(workspace: Path, method: str, runs: str = "runs") -> RunDir:
    (config,) = resolve(Request(workspace, "small", methods=(method,)))
    return open_run(config, workspace / runs)


def named(run: RunDir) -> list[str]:
    """Digests of the weights of both stages."""
    names = ("1-colour", "2-shade")
    return [
        json.loads((run.folder / "stages" / name / "extension.json").read_text())["sha256"] for name in names
    ]


@contextmanager
def other_training(monkeypatch: pytest.MonkeyPatch, *stages: int) -> Iterator[None]:
    """Context in which these stages get other weights, as on another machine or by another version."""
    learn: Callable[..., Any] = stage_module.StageLoop.__call__

    def other(self: Any, *, learning_rate: float | None = None, **more: Any) -> Any:
        return learn(self, learning_rate=0.05 if self.stage.index in stages else learning_rate, **more)

    with monkeypatch.context() as patch:
        patch.setattr(stage_module.StageLoop, "__call__", other)
        yield


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch, name: str, stage: int | None = None) -> Iterator[None]:
    """Context in which a run is interrupted when it calls a function of the runner (for a row of the matrix)."""
    called: Callable[..., Any] = getattr(runner, name)

    def stop(*args: Any, **more: Any) -> Any:
        if stage is None or args[3] == stage:
            raise KeyboardInterrupt
        return called(*args, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, name, stop)
        yield


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def test_what_was_made_after_other_weights_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a kill between the new weights and the removal of what depends on the old ones."""
    monkeypatch.setenv("MOEXTEND_SHARING", "off")
    folder = small.make(tmp_path / "w")
    run = opened(folder, "full-ft")
    runner.run(run.folder)
    before, cells = named(run), run.cells()
    flip(run.folder / "stages/1-colour/extension.safetensors")
    with other_training(monkeypatch, 1), killed(monkeypatch, "_write_cost"):
        runner.run(run.folder)
    runner.run(run.folder)
    assert not set(named(run)) & set(before) and not lacks(run)
    again = RunDir(run.folder).cells()
    assert all((cell.weights == cells[key].weights) == (key[0] == 0) for key, cell in again.items())


def test_an_interrupted_training_does_not_go_on_after_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOEXTEND_SHARING", "off")
    folder, ticks = small.make(tmp_path / "w"), []
    run, tick = opened(folder, "full-ft"), stage_module.Stopwatch.tick

    def stop(self: Any) -> Any:
        ticks.append(1)
        if len(ticks) == 6:  # the third step of the second stage
            raise KeyboardInterrupt
        return tick(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage_module.Stopwatch, "tick", stop)
        runner.run(run.folder)
    assert list(run.folder.glob("stages/2-shade/*-in-flight/checkpoint-*"))
    flip(run.folder / "stages/1-colour/extension.safetensors")
    before = len(ticks)
    with other_training(monkeypatch, 1), monkeypatch.context() as patch:
        patch.setattr(stage_module.Stopwatch, "tick", lambda self: ticks.append(1))
        runner.run(run.folder)
    assert len(ticks) - before == 6, "both stages are trained from their first step on"


def test_another_base_or_generic_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small.make(tmp_path / "w")
    shutil.copytree(content.package_folder("registry") / "models/tiny", folder / "own")
    sequence = folder / "registry/small.yaml"
    sequence.write_text(sequence.read_text().replace("model: tiny,", "model: own/lm,"))
    run, generic = opened(folder, "full-ft"), folder / "registry/generic.txt"
    with killed(monkeypatch, "score_row", 2):
        runner.run(run.folder)
    text = generic.read_text()
    generic.write_text("another text .\n")
    with pytest.raises(RunConflict, match=r"generic text .* changed"):
        runner.run(run.folder)
    generic.write_text(text)
    path = folder / "own/lm/model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "embed" in name)
    save_file({**tensors, name: tensors[name] * 1.5}, path, metadata={"format": "pt"})
    with pytest.raises(RunConflict, match="the files of the base changed after this run began"):
        runner.run(run.folder)
