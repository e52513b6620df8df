"""Audio encoders of every kind: numbers of tokens, independence, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moextend.errors import InputError
from moextend.model import sources
from moextend.model.audio import AudioEncoder, load_encoder
from tests.hub.server import connected
from tests.model.toy_audio import KINDS, saved, sound

LENGTHS = [0.0001, 0.011, 0.3, 1.0, 1.999, 2.0, 2.3]
RATES = {"own": 25.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: saved(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoder(kind: str, folders: dict[str, Path]) -> AudioEncoder:
    return load_encoder(str(folders[kind]))


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_sound_has_as_many_tokens_as_it_is_long(kind: str, encoder: AudioEncoder) -> None:
    assert encoder.tokens is None and not any(p.requires_grad for p in encoder.parameters())
    pace = RATES.get(kind, 50.0)
    assert encoder.tower.frames_per_second == pytest.approx(pace)
    for seed, seconds in enumerate(LENGTHS):
        ref = sound(seconds, seed)
        (found,) = encoder([ref])
        assert found.shape == (encoder.tokens_of(ref), encoder.width) and found.dtype == torch.float32
        assert torch.isfinite(found).all()
        wanted = seconds * pace / encoder.stack
        assert max(1, wanted - 1) <= len(found) <= max(1, wanted + 2)


def test_features_depend_on_no_other_sound_and_repeat(encoder: AudioEncoder, monkeypatch: Any) -> None:
    sounds = [sound(seconds, seed) for seed, seconds in enumerate((0.3, 1.1, 0.02, 2.3))]
    together = encoder(sounds)
    assert equal(together, [encoder([ref])[0] for ref in sounds])
    np.random.seed(5)
    encoder.train()
    assert equal(together, encoder([*sounds, sounds[0]])[:4])


def test_tokens_a_second_are_a_setting(folders: dict[str, Path]) -> None:
    folder = str(folders["whisper"])
    default, five = load_encoder(folder), load_encoder(f"{folder}:10/s")
    assert (default.stack, default.width, default.facts["tokens_per_second"]) == (4, 64, 12.5)
    assert (five.stack, five.width, five.facts["tokens_per_second"]) == (5, 80, 10)
    assert five.fingerprint() != default.fingerprint()
    (frames,), (stacked,) = load_encoder(f"{folder}:50/s")([sound(1)]), five([sound(1)])
    assert torch.equal(frames.view(10, 80), stacked)
    for pace in ("51", "0"):
        with pytest.raises(
            InputError, match=r"gives 50 frames per second, and \d+ tokens per second were requested"
        ):
            load_encoder(f"{folder}:{pace}/s")


@pytest.mark.parametrize("seconds", [0.0001, 0.5, 2.0])
def test_whisper_sees_what_its_extractor_computes(folders: dict[str, Path], seconds: float) -> None:
    encoder = load_encoder(str(folders["whisper"]))
    tower: Any = encoder.tower
    samples = sound(seconds, rate=16_000).open().samples
    wanted = tower.extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    found = tower.mel(torch.from_numpy(samples)[None], 200)
    assert torch.allclose(found, wanted, atol=1e-4, rtol=0)


def copied(folder: Path, to: Path, *without: str) -> Path:
    for path in folder.iterdir():
        if path.name not in without:
            (to / path.name).write_bytes(path.read_bytes())
    return to


def changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_missing_tensors_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["whisper"], tmp_path)
    changed(folder / "config.json", encoder_layers=3)
    with pytest.raises(InputError, match=r"the checkpoint lacks \d+ tensors, which would be random"):
        load_encoder(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_missing_files_are_refused(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"cannot be loaded as an audio encoder \(.*\)\. It needs config\.json, model"
    ):
        load_encoder(str(copied(folders["whisper"], tmp_path, name)))


def test_code_of_a_checkpoint_is_not_run(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["whisper"], tmp_path)
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    changed(folder / "config.json", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    changed(folder / "preprocessor_config.json", auto_map={"AutoFeatureExtractor": "evil.Extractor"})
    assert load_encoder(str(folder)).fingerprint()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "config.json",
            {"model_type": "bert"},
            "model of type 'bert', which is not a supported audio encoder",
        ),
        ("config.json", {"d_model": 24}, "cannot be loaded as an audio encoder"),
        ("preprocessor_config.json", {"feature_size": 40}, "cannot be loaded as an audio encoder"),
        ("preprocessor_config.json", {"chunk_length": 3}, "cannot be loaded as an audio encoder"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    folders: dict[str, Path], tmp_path: Path, name: str, change: dict[str, object], message: str
) -> None:
    folder = copied(folders["whisper"], tmp_path)
    changed(folder / name, **change)
    with pytest.raises(InputError, match=message):
        load_encoder(str(folder))


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="no audio encoder 'tinny'"):
        load_encoder("tinny")
    for name in ("", "no/such/folder", "a" * 300, "../x"):
        with pytest.raises(InputError, match="there is no folder"):
            load_encoder(name)


def test_an_encoder_of_the_hub_is_opened_at_its_commit(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(tmp_path / "cache", monkeypatch) as served:
        first = served.push("org/sounds", folders["whisper"])
        with sources.pinned({}) as opened:
            encoder = load_encoder("org/sounds:10/s")
        assert opened == {"org/sounds": first} and encoder.stack == 5
        assert (encoder.facts["name"], encoder.facts["source"]) == ("org/sounds", first)
        served.push("org/sounds", folders["whisper"])
        with sources.pinned(opened):
            assert load_encoder("org/sounds").facts["source"] == first
        assert load_encoder("org/sounds", revision=first).facts["source"] == first
        assert load_encoder("org/sounds").facts["source"] != first
        assert load_encoder("org/sounds:10/s").fingerprint() == encoder.fingerprint()
