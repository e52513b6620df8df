"""The memory that executors reserve is that of the estimate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.executors.needs import PROCESS_GB, memory_gb
from moextend.bench.run.rundir import RunConfig
from tests.bench.conftest import MakeConfig

MIXTRAL = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "dtype": "float32", "hidden_size": 1024,
    "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 8,
    "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000,
}  # fmt: skip
BASE_GB = 4 * (8 * (8 * 3 * 1024 * 2048 + 3 * 1024**2 + 8 * 1024 + 2 * 1024) + (2 * 32000 + 1) * 1024) / 1e9


def configs(make_config: MakeConfig, model: str) -> list[RunConfig]:
    base: dict[str, Any] = {**make_config().sequence, "base": {"model": model}}
    return [make_config(method, sequence=base) for method in ("lora", "full-ft")]


def test_runs_of_a_small_base_take_what_a_process_takes(make_config: MakeConfig) -> None:
    assert memory_gb(configs(make_config, "tiny"), on_gpu=False) == [PROCESS_GB] * 2
    assert memory_gb([], on_gpu=False) == []


def test_runs_take_the_peak_of_their_method_and_on_a_gpu_the_weights(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL))
    runs = configs(make_config, str(tmp_path))
    lora, full = memory_gb(runs, on_gpu=False)
    assert lora and lora > PROCESS_GB + 2 * BASE_GB, "peft keeps dense sums of stacks and adapters"
    assert full and full > PROCESS_GB + 4 * BASE_GB, "weights, gradients and two moments"
    assert memory_gb(runs, on_gpu=True) == pytest.approx([PROCESS_GB + BASE_GB] * 2, rel=0.01)


def test_a_base_that_cannot_be_read_here_has_no_estimate(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert memory_gb(configs(make_config, str(tmp_path)), on_gpu=False) == [None, None]
