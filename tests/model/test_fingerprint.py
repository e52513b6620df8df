"""Fingerprints of weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from moextend.model.fingerprint import rounded_digest, tensors_digest


def weights(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(5, 7, generator=generator).to(dtype),
        "b": torch.randn(3, 4, generator=generator).to(dtype).T,
        "c": torch.tensor(1.5, dtype=dtype),
    }


def test_the_name_is_what_it_always_was() -> None:
    whole = {"w": torch.arange(6, dtype=torch.float32).view(2, 3), "i": torch.tensor([1, 2])}
    assert tensors_digest(whole) == "ac94963f14d7f18a"


@pytest.mark.parametrize("change", ["value", "name", "shape", "dtype", "order"])
def test_whatever_differs_is_named_again(change: str) -> None:
    plain = weights()
    other = dict(plain)
    if change == "value":
        other["a"] = other["a"] + 1e-6
    elif change == "name":
        other["d"] = other.pop("c")
    elif change == "shape":
        other["a"] = other["a"].view(7, 5)
    elif change == "dtype":
        other = weights(dtype=torch.bfloat16)
    else:
        other = dict(reversed(plain.items()))
    assert (tensors_digest(other) == tensors_digest(plain)) == (change == "order")
    assert change != "dtype" or rounded_digest(other) == rounded_digest(plain)
