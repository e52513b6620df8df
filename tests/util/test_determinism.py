"""Deterministic algorithms: switched on for a while, and off again."""

from __future__ import annotations

import os

import pytest
import torch

from moextend.util.determinism import VARIABLES, deterministic


def switches() -> dict[str, object]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "cudnn.deterministic": cudnn.deterministic,
        "precision": torch.get_float32_matmul_precision(),
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
        **{name: os.environ.get(name) for name in VARIABLES},
    }


def test_all_switches_are_put_back_and_a_gpu_uses_plain_attention_without_tf32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = switches()
    with pytest.raises(KeyError), deterministic():
        now = switches()
        names = ("flash", "efficient", "cudnn", "cudnn.benchmark", "cudnn.allow_tf32")
        assert not any(now[name] for name in names) and now["cudnn.deterministic"]
        assert now["algorithms"] and now["precision"] == "highest"
        assert now["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise KeyError
    assert switches() == before
    with deterministic(False):
        assert switches() == before
