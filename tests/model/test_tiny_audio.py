"""The small encoder of sounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moextend.errors import InputError
from moextend.model.audio import load_encoder
from moextend.model.tiny_audio import TinyAudio, TinyAudioConfig, load_tiny_audio

SMALL = TinyAudioConfig(rate=8_000, fft=200, hop=80, mels=16, width=16, layers=1, inner=16)


def small() -> TinyAudio:
    torch.manual_seed(0)
    return TinyAudio(SMALL).eval()


def wave(samples: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 320, 321, 12_345])
def test_a_sound_has_as_many_features_as_stated(samples: int) -> None:
    model = small()
    found = model.frames(wave(samples))
    assert found.shape == (model.length(samples), 16) == (max(1, -(-samples // 320)), 16)
    assert torch.isfinite(found).all()


def test_a_sound_has_the_same_features_in_any_batch() -> None:
    model, lengths = small(), [8_000, 3_000, 1, 12_000]
    waves = torch.zeros(4, 12_000)
    for row, samples in enumerate(lengths):
        waves[row, :samples] = torch.from_numpy(wave(samples, row))
    together = model(waves, torch.tensor(lengths))
    for row, samples in enumerate(lengths):
        alone = model.frames(wave(samples, row))
        assert torch.allclose(together[row, : len(alone)], alone, atol=1e-5)
        assert not together[row, len(alone) :].any()


def test_a_saved_encoder_is_loaded(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "audio")
    again = load_tiny_audio(tmp_path / "audio")
    assert again.config == SMALL and torch.equal(again.frames(wave(999)), model.frames(wave(999)))
    assert sorted(path.name for path in (tmp_path / "audio").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("change", [{"width": 20}, {"layers": 2}, {"depth": 2}])
def test_a_wrong_config_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    small().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match="cannot be loaded as an audio encoder"):
        load_encoder(str(tmp_path))
