"""Training settings in a sequence's YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.sequence import read_sequence
from moextend.errors import RunConflict
from moextend.training.settings import Settings, Training
from moextend.util import content

TRAIN: dict[str, Any] = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}


def sequence(folder: Path, **train: Any) -> Training:
    path = folder / "s.yaml"
    record = {
        "sequence": "s",
        "version": 1,
        "base": {"model": "tiny"},
        "stages": [],
        "train": {**TRAIN, **train},
    }
    path.write_text(yaml.safe_dump(record))
    return read_sequence(path).train


def test_what_is_set_reaches_the_loop(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "schedule": "linear", "bf16": True, "gradient_checkpointing": True, "compile": True, "balance": 0.001,
        "report_to": "tensorboard", "gradient_accumulation": 2, "max_grad_norm": 0.5, "weight_decay": 0.1,
        "betas": (0.9, 0.95), "epsilon": 1e-6, "warmup": 0.1,
    }  # fmt: skip
    assert sequence(tmp_path, **given).settings(7) == Settings(**TRAIN, **given, seed=7)


def run_with(workspace: Path, **train: Any) -> Any:
    """The config of a run of a workspace's sequence with these settings."""
    record = {
        "sequence": "mine", "version": 1, "base": {"model": "tiny", "vision": "tiny"}, "methods": ["lora"],
        "stages": [{"task": "tiny-counting"}], "train": {**TRAIN, **train},
        "align": {"task": "tiny-captions", **TRAIN, **train},
    }  # fmt: skip
    path = workspace / "registry" / "sequence.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(record))
    (config,) = resolve(Request(workspace))
    return config


@pytest.mark.parametrize(
    ("change", "named"),
    [({"betas": [0.9, 0.95]}, "betas"), ({"epsilon": 1e-6}, "epsilon"), ({"schedule": "linear"}, "schedule")],
)
def test_another_setting_makes_another_run(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    plain = run_with(tmp_path)
    run = open_run(plain, tmp_path / "runs")
    (run.stage_folder(1, "tiny-counting") / "extension.safetensors").touch()  # it has begun to train
    other = run_with(tmp_path, **change)
    assert other.digest != plain.digest and other.experiment() != plain.experiment()
    assert other.sequence_spec.train == Training(**{**TRAIN, **change})
    with pytest.raises(RunConflict, match=f"sequence.train.{named}"):
        open_run(other, tmp_path / "runs")


def test_every_shipped_sequence_on_a_narrow_base_trains_in_bfloat16() -> None:
    """Without it the probe's routers, full fine-tuning and LoRA are refused: they would learn in bfloat16."""
    narrow = 0
    for path in sorted(content.package_folder("registry").glob("*.yaml")):
        found = read_sequence(path)
        if found.base.dtype != "float32":
            narrow += 1
            assert found.train.bf16, path
            assert all(align.bf16 for align in found.align), path
    assert narrow
