"""The settings of a training in a sequence's YAML."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from moextend.bench.sequence import Schedule, Tracker, Training, read_sequence
from moextend.errors import SpecError
from moextend.training.settings import SCHEDULES, Settings
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


def test_a_sequence_has_every_setting_of_the_loop_with_its_default(tmp_path: Path) -> None:
    plain = sequence(tmp_path)
    assert set(Training.model_fields) == {field.name for field in fields(Settings)} - {"seed"}
    assert plain.settings(0) == Settings(**TRAIN)
    assert set(get_args(Schedule)) == set(SCHEDULES)
    assert set(get_args(Tracker)) == {"none", "all", *INTEGRATION_TO_CALLBACK}


def test_what_is_set_reaches_the_loop(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "schedule": "linear", "bf16": True, "gradient_checkpointing": True, "compile": True, "balance": 0.001,
        "report_to": "tensorboard", "gradient_accumulation": 2, "max_grad_norm": 0.5, "weight_decay": 0.1,
    }  # fmt: skip
    assert sequence(tmp_path, **given).settings(7) == Settings(**TRAIN, **given, seed=7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"schedule": "cosin"}, r"train\.schedule: .*'cosine', 'linear' or 'constant'"),
        ({"balance": -1}, r"train\.balance: .*greater than or equal to 0"),
        ({"report_to": "tensorbord"}, r"train\.report_to: .*'tensorboard'"),
        ({"bf16": "maybe"}, r"train\.bf16: "),
        ({"gradient_checkpoint": True}, r"Did you mean 'gradient_checkpointing'\?"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sequence(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": "bfloat61"}, r"base\.dtype: .*'auto', 'float32', 'bfloat16'.*found 'bfloat61'"),
        ({"attn_implementation": "flash"}, r"base\.attn_implementation: .*'sdpa' or 'flash_attention_2'"),
    ],
)
def test_a_wrong_option_of_the_base_is_one_clear_error(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    record = {"sequence": "s", "version": 1, "base": {"model": "tiny", **wrong}, "stages": [], "train": TRAIN}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(SpecError, match=message):
        read_sequence(tmp_path / "s.yaml")


def test_every_shipped_sequence_on_a_narrow_base_trains_in_bfloat16() -> None:
    """Without it the probe's routers, full fine-tuning and LoRA are refused: they would learn in bfloat16."""
    narrow = 0
    for path in sorted(content.package_folder("registry").glob("*.yaml")):
        found = read_sequence(path)
        if found.base.dtype != "float32":
            narrow += 1
            assert found.train.bf16, path
            assert found.align is None or found.align.bf16, path
    assert narrow
