"""Tensor files with checksums."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moextend.bench.run import shared
from moextend.bench.sequence import Align
from moextend.bench.store import Store
from moextend.errors import InputError
from moextend.extension import align, router_memory, tensor_files

TENSORS = {"0": torch.arange(12.0).reshape(3, 4), "2": torch.ones(5, 4)}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_no_flipped_bit_and_no_cut_is_read(tmp_path: Path) -> None:
    path = tmp_path / router_memory.FILE
    router_memory.write(router_memory.Memory.of(TENSORS), tmp_path)
    size = path.stat().st_size
    whole = path.read_bytes()
    seen = 0
    for place in range(0, size, 5):
        flip(path, place)
        try:
            read = router_memory.read(tmp_path).tensors()
        except InputError as error:
            assert "is damaged" in str(error)
            seen += 1
        else:  # the name of the digest was hit, and no tensor
            assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
        path.write_bytes(whole)
    assert seen > 0.9 * size / 5
    for length in (0, 7, size // 2, size - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is damaged"):
            router_memory.read(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        router_memory.read(tmp_path)


def test_tensors_that_are_not_finite_are_not_read(tmp_path: Path) -> None:
    tensor_files.write_tensors(tmp_path / "x.safetensors", {"0": torch.tensor([1.0, float("nan")])})
    with pytest.raises(InputError, match="not finite"):
        tensor_files.read_tensors(tmp_path / "x.safetensors")


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


class Projector(torch.nn.Linear):
    def reset(self, seed: int) -> None:
        torch.nn.init.zeros_(self.weight)


def test_a_damaged_projector_in_the_cache_is_aligned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    projector = Projector(3, 2, bias=False)
    model: Any = SimpleNamespace(
        modalities={"image": SimpleNamespace(projector=projector)},
        chat=None,
        base_fingerprint=lambda modalities: "base",
    )
    trained: list[str] = []

    def train_projector(*arguments: object, **more: object) -> object:
        trained.append("once")
        torch.nn.init.ones_(projector.weight)
        return SimpleNamespace(steps=1, tokens=2, flops=3.0)

    monkeypatch.setattr(align, "train_projector", train_projector)
    settings = Align(task="captions", steps=1, batch_size=1, learning_rate=0.1)
    for damage in (lambda path: flip(path, -1), lambda path: path.write_bytes(b""), into_folder, None):
        cost = shared.align(
            model,
            [],
            settings,
            seed=0,
            data_name="x",
            store=Store(tmp_path),
            on_step=lambda done, total: None,
        )
        assert bool((projector.weight == 1).all())
        assert (cost.task, cost.steps, cost.tokens, cost.flops) == ("captions", 1, 2, 3.0)
        (kept,) = tmp_path.glob("aligned/*/*.safetensors")
        if damage:
            damage(kept)
    assert trained == ["once"] * 4
    assert [message.endswith("it is made again.") for message in caplog.messages] == [True] * 3
