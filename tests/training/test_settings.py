"""Training settings: valid values, and their record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from moextend.errors import InputError
from moextend.training.settings import (
    ADDED,
    SCHEDULES,
    Schedule,
    Settings,
    Training,
)

PLAIN = Settings(steps=2, batch_size=4, learning_rate=1e-3)
DOC = Path(__file__).parents[2] / "docs" / "training.md"


def test_names_are_those_of_transformers() -> None:
    assert set(get_args(Schedule)) == set(SCHEDULES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, r"steps: Input should be greater than or equal to 1 \(found 0\)"),
        ({"steps": True}, "steps: must be a number, not true or false"),
        ({"learning_rate": 0}, "learning_rate: Input should be greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate: Input should be a finite number"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]: Input should be less than 1"),
        ({"schedule": "cosin"}, r"schedule: .*Did you mean 'cosine'\?"),
        ({"beta": (0.9, 0.9)}, r"beta: no such key\. Did you mean 'betas'\?"),
        ({"cache_prefix": True, "compile": True}, "cache_prefix cannot be combined with compile"),
        ({"steps": 1_000_000, "batch_size": 1000}, "steps x batch_size x gradient_accumulation is"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^training settings: {message}") as error:
        PLAIN.having(**wrong)
    assert "\n" not in str(error.value)


def test_a_record_of_the_defaults_is_that_of_former_runs() -> None:
    assert set(PLAIN.record()) == set(Settings.model_fields) - set(ADDED)
    assert PLAIN.having(betas=(0.9, 0.95)).record() == {**PLAIN.record(), "betas": [0.9, 0.95]}
    assert PLAIN.having(epsilon=1e-6).record() == {**PLAIN.record(), "epsilon": 1e-6}


def test_every_setting_is_documented_with_its_default() -> None:
    rows = [line.split("|")[1:4] for line in DOC.read_text().splitlines() if line.startswith("| `")]
    table = {name.strip(): default.strip() for names, default, _ in rows for name in names.split(",")}
    for name, field in Training.model_fields.items():
        default = "" if field.is_required() else json.dumps(field.default).strip('"')
        assert table[f"`{name}`"].strip("`") == default, name
