"""Fingerprints of weights, and the cache for large ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moextend.model import fingerprint
from moextend.model.fingerprint import cached_digest, tensors_digest


def weights(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(5, 7, generator=generator).to(dtype),
        "b": torch.randn(3, 4, generator=generator).to(dtype).T,
        "c": torch.tensor(1.5, dtype=dtype),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fingerprint, "LARGE", 1)
    return tmp_path / "moextend" / "fingerprints"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one each time that all bytes go through SHA-256."""
    calls: list[int] = []

    def counted(tensors: Mapping[str, Tensor]) -> str:
        calls.append(1)
        return tensors_digest(tensors)

    monkeypatch.setattr(fingerprint, "tensors_digest", counted)
    return calls


def test_the_name_is_what_it_always_was(folder: Path) -> None:
    whole = {"w": torch.arange(6, dtype=torch.float32).view(2, 3), "i": torch.tensor([1, 2])}
    assert tensors_digest(whole) == cached_digest(whole) == "ac94963f14d7f18a"


def test_weights_that_were_seen_are_named_without_sha256(folder: Path, slow: list[int]) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert cached_digest(weights(dtype=dtype)) == tensors_digest(weights(dtype=dtype))
    assert len(slow) == 3 and len(list(folder.iterdir())) == 3
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert cached_digest(weights(dtype=dtype)) == tensors_digest(weights(dtype=dtype))
    assert len(slow) == 3


@pytest.mark.parametrize("what", ["a bit", "a name", "a shape", "a type", "the order"])
def test_whatever_differs_is_named_again(what: str, folder: Path) -> None:
    plain = {"x": torch.arange(4.0), "y": torch.arange(4.0, 8.0)}
    base = cached_digest(plain)
    other = dict(plain)
    if what == "a bit":
        other["y"] = other["y"].clone()
        other["y"][-1] = torch.nextafter(other["y"][-1], torch.tensor(9.0))
    elif what == "a name":
        other["z"] = other.pop("y")
    elif what == "a shape":
        other["x"] = other["x"].view(2, 2)
    elif what == "a type":
        other["x"] = other["x"].view(torch.int32)
    else:
        other = {"x": plain["y"], "y": plain["x"]}
    assert cached_digest(other) == tensors_digest(other) != base


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff\xfe", b"0123456789abcdef 0123456789abcdef\n"])
def test_a_damaged_entry_is_made_again(damage: bytes, folder: Path, slow: list[int]) -> None:
    name = cached_digest(weights())
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage)
    assert cached_digest(weights()) == name and len(slow) == 2
    assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_time_only(folder: Path, slow: list[int]) -> None:
    folder.parent.parent.joinpath("moextend").write_text("a file is in the way")
    assert cached_digest(weights()) == cached_digest(weights()) == tensors_digest(weights())
    assert len(slow) == 2 and not folder.is_dir()
