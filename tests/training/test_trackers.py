"""Available trackers of a training."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from transformers.integrations.integration_utils import get_available_reporting_integrations

from moextend.errors import InputError, UnknownName
from moextend.training import settings


def test_a_package_of_a_tracker_that_is_here_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: True)
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", list)
    with pytest.raises(InputError, match=r"train\.report_to: the tracker 'wandb' is not installed\."):
        settings.check_tracker("wandb", where="train.report_to")


def test_an_unknown_tracker_is_not_called_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(UnknownName, match=r"no tracker 'wanb'\. Did you mean 'wandb'\?"):
        settings.check_tracker("wanb")


def test_no_tracker_that_transformers_finds_is_refused() -> None:
    for name in get_available_reporting_integrations():
        packages = settings.PACKAGES.get(name, (name,))
        assert any(find_spec(package) for package in packages), name
