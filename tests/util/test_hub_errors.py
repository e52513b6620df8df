"""Errors of the hub and of its HTTP library are one line that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

import moextend
from moextend.errors import InputError, RunFailed
from moextend.util import hub_errors


class ReadTimeout(Exception):
    """Named as in the HTTP libraries of huggingface_hub, whose errors are no OSError."""


def test_a_time_out_is_no_fault_of_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def stalled(*_: Any, **__: Any) -> None:
        raise ReadTimeout("timed out")

    monkeypatch.setattr("transformers.PreTrainedConfig.get_config_dict", stalled)
    with pytest.raises(RunFailed, match="the hub cannot be reached or breaks connections") as failed:
        moextend.load("org/base")
    assert failed.value.where == "model 'org/base'" and "Run the same command again" in str(failed.value.hint)


def test_offline_is_wrong_input() -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    found = hub_errors.of_hub(OfflineModeIsEnabled("no"), "org/data", "dataset")
    assert isinstance(found, InputError) and found.where == "data set 'org/data'"
    assert "Unset HF_HUB_OFFLINE" in str(found.hint)
