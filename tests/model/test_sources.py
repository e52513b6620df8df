"""Names of bases, resolved before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.errors import InputError, RunFailed
from moextend.model import loading, sources
from tests.hub.server import connected


def test_a_model_of_the_package_a_folder_a_file_and_a_hub_id(tmp_path: Path) -> None:
    packaged = sources.find("tiny")
    assert isinstance(packaged, Path) and (packaged / "config.json").is_file()
    (tmp_path / "a.gguf").touch()
    assert sources.find(str(tmp_path / "a.gguf")) == tmp_path / "a.gguf"
    assert sources.find(tmp_path) == tmp_path  # the one file is meant
    (tmp_path / "config.json").touch()
    assert sources.find(str(tmp_path)) == tmp_path
    for name in ("allenai/OLMoE-1B-7B-0924", "gpt2", "a.b/c_d-e"):
        assert sources.find(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "a/b/c", "../x", "/nothing", "two words", "-x", "a//b", "a" * 97, "tinny", "x.gguf"]
)
def test_what_can_be_no_base(name: str) -> None:
    with pytest.raises(InputError) as error:
        sources.find(name, where="base.model")
    assert error.value.where == "base.model" and error.value.hint


def test_a_name_is_looked_up_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="no model or folder 'nope', and the hub cannot be reached") as error:
        sources.check_hub("nope", where="BASE")
    assert error.value.where == "BASE" and error.value.hint == sources.FORMS and not caplog.records
    with pytest.raises(InputError, match="cannot be reached"):
        loading.load("nope")
    for load in (loading.load, loading.skeleton):
        with pytest.raises(RunFailed, match="model 'owner/name': the hub cannot be reached"):
            load("owner/name")
    sources.check_hub(tmp_path)
    for name in ("nope", "owner--name"):
        (tmp_path / f"models--{name}").mkdir()
    sources.check_hub("nope")
    sources.check_hub("owner/name")


@pytest.mark.parametrize("name", ["gpt2", "owner/name"])
def test_what_the_hub_says_of_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    with connected(tmp_path / "cache", monkeypatch) as hub:
        hub.push(name, tmp_path)
        sources.check_hub(name)
        sources.check_hub(name, revision="main")
        with pytest.raises(InputError, match="the hub has no such model"):
            sources.check_hub(f"{name}-nope")
