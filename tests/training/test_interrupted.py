"""An interrupted training continues from a complete checkpoint, to the result of an uninterrupted one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moextend import Conversation, train
from moextend.training import checkpoint
from moextend.training.loop import Report
from tests.training.toy_training import DATA, SETTINGS, extended, parts, stop_at


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole = extended()
    train(whole, DATA, SETTINGS, folder=tmp_path / "whole")
    broken = extended()
    with pytest.raises(KeyboardInterrupt):
        train(broken, DATA, SETTINGS, folder=tmp_path / "broken", on_step=stop_at(8))
    assert not broken.training, "dropout would change what the model says now"
    again = extended()
    seen: list[int] = []
    train(again, DATA, SETTINGS, folder=tmp_path / "broken", on_step=lambda done, total: seen.append(done))
    assert seen == [7, 8, 9]
    for name, value in parts(whole).items():
        assert torch.equal(parts(again)[name], value), name


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was stopped with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        train(extended(), DATA, SETTINGS, folder=folder / "t", on_step=stop_at(8))
    return folder / "t"


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.pt", "manifest.json"])
@pytest.mark.parametrize("damage", [Path.unlink, flip])
def test_a_damaged_checkpoint_is_incomplete_and_the_older_one_complete(
    tmp_path: Path, stopped: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "t")
    (folder / "checkpoint-9").write_text("mine")
    assert checkpoint.last(folder) == str(folder / "checkpoint-6")
    damage(folder / "checkpoint-6" / name)
    assert checkpoint.last(folder) == str(folder / "checkpoint-3")
    (message,) = caplog.messages
    assert "checkpoint-6: is not complete" in message and "continues from an older one" in message
    assert not (folder / "checkpoint-6").exists()


def test_the_flops_of_a_resumed_training_include_all_attempts(tmp_path: Path) -> None:
    rows = [Conversation(((" ".join(["w1"] * (1 + i % 7)), "w2"),)) for i in range(12)]  # padding varies
    whole = train(extended(), rows, SETTINGS, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(extended(), rows, SETTINGS, folder=tmp_path / "t", on_step=stop_at(5))
    assert train(extended(), rows, SETTINGS, folder=tmp_path / "t") == whole


def test_the_logged_losses_of_a_resumed_training_are_those_of_the_whole_one(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 20, "checkpoint_steps": 3})  # a log every second step
    logs: list[dict[int, float]] = []

    def run(folder: Path, stop: int | None = None) -> Report:
        logs.append({})
        return train(
            extended(), DATA, settings, folder=folder, on_step=stop_at(stop) if stop else None,
            on_log=lambda entry: logs[-1].update({int(entry["step"]): entry["loss"]}),
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    for stop in (3, 4, 10):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "t", stop)
    again = run(tmp_path / "t")
    assert again.loss_first == pytest.approx(whole.loss_first, rel=1e-6)
    assert logs[-1] == {step: pytest.approx(logs[0][step], rel=1e-6) for step in logs[-1]}
