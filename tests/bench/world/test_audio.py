"""The tiny audio encoder: its training and the shipped one."""

import json
from pathlib import Path

import pytest
import torch

from moextend.bench.world import audio
from moextend.bench.world.scenes import WORLD_VERSION
from moextend.bench.world.sound import RATE, Melody, Note
from moextend.bench.world.speech import Utterance

FOLDER = Path(__file__).parents[3] / "registry" / "models" / "tiny" / "audio"
RECORD = json.loads((FOLDER / "build.json").read_text())


def names(truth: dict[str, torch.Tensor], head: str) -> list[str]:
    """Classes of a head without repetitions."""
    found = [audio.HEADS[head][int(i)] for i in truth[head]]
    return [name for i, name in enumerate(found) if i == 0 or name != found[i - 1]]


def test_the_truth_of_a_melody() -> None:
    melody = Melody((Note("red", "top", "big"), Note("blue", "bottom", "small")))
    samples, truth = audio.example(melody)
    assert all(len(classes) == -(-len(samples) // audio.STRIDE) for classes in truth.values())
    assert [name for name in names(truth, "color") if name != "none"] == ["red", "blue"]
    assert [name for name in names(truth, "order") if name != "none"] == ["one", "two"]
    assert names(truth, "sign") == ["none"]
    long = (truth["size"] == audio.HEADS["size"].index("big")).sum()
    assert 3 <= long * audio.STRIDE / RATE / 0.1 <= 6


def test_a_batch_has_no_truth_after_the_end_of_a_sound() -> None:
    short, long = audio.example(Utterance(("E",), 1)), audio.example(Utterance(("W", "W"), 1))
    batch, lengths = audio.together([short, long])
    assert lengths.tolist() == [len(short.samples), len(long.samples)]
    assert (batch.truth["sign"][0, len(short.truth["sign"]) :] == -100).all()


def test_a_short_training_writes_everything_and_repeats_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "SCORED", 4)
    for name in ("one", "two"):
        audio.build(audio.Recipe(sounds=8, steps=2, batch=4), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["build.json", "config.json", "model.safetensors"]
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_shipped_encoder_is_of_this_world_and_small() -> None:
    assert RECORD["world_version"] == WORLD_VERSION
    assert min(RECORD["accuracy"].values()) > 95
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_100_000
