"""`moextend serve` up to its first request: which models it serves, from every form of a base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moextend
from tests.cli.conftest import Cli
from tests.cli.test_export import extension

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from moextend.cli import serve_model
from moextend.serving.catalogue import Known
from moextend.serving.server import Server

Served = Callable[..., dict[str, str]]


@pytest.fixture
def served(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Calls `moextend serve` and ends it when it is ready: model -> fingerprint, as it printed and would answer."""
    known: list[Known] = []

    def run(self: Server, sockets: Any) -> None:
        known.append(self.engine.catalogue.known)
        self.ready()

    monkeypatch.setattr(Server, "run", run)
    monkeypatch.setattr(serve_model, "_leave", lambda: None)  # it ends the process

    def call(*arguments: str) -> dict[str, str]:
        found = cli("serve", *arguments, "--port", "0")
        assert found.code == 0, found.err
        models = {name: known[-1].fingerprint(names) for name, names in known[-1].models().items()}
        assert f"/v1 serves {', '.join(models)}   (" in found.out
        return models

    return call


def test_strengths_and_exported_models(cli: Cli, served: Served, tmp_path: Path) -> None:
    extension("skill")
    extension("other")
    plain = served("tiny", "-e", "skill", "-e", "other:0.25")
    assert list(plain) == ["base", "skill", "other:0.25"]
    model = moextend.load("tiny")
    for name in ("skill", "other"):
        moextend.load_extension(model, name)
    moextend.activate(model, {"other": 0.25})
    assert plain["other:0.25"] == moextend.active_fingerprint(model)

    assert cli("export", "skill", "--base", "tiny", "--as", "moextend", "--out", "linked").code == 0
    linked = served("linked")
    assert linked == {name: plain[name] for name in ("base", "skill")}
    assert served("linked", "-e", "other:0.25") == plain, "further extensions come on top"
    moextend.activate(model, {"skill": 1, "other": 0.25})
    moextend.save_model(model, "whole", with_base=True)
    shutil.rmtree("skill")
    assert served("whole") == plain, "copied base, saved strength"
    own = cli("serve", "linked", "--quantize", "nf4")
    assert own.err.startswith("error: --quantize: applies only to a base that is not exported.")

    certified = cli(
        "certify", "whole/extensions/01-skill", "--base", "whole", "--items", "2", "--out", "proof"
    )
    assert certified.code == 0, certified.err
    record = json.loads((tmp_path / "proof" / "certificate-own.json").read_text())
    assert record["base"]["name"] == "whole" and record["base"]["fingerprint"] == plain["base"]


def test_a_stock_checkpoint_is_a_base_of_its_own(cli: Cli, served: Served) -> None:
    extension("skill")
    assert cli("export", "skill", "--base", "tiny", "--as", "stock", "--out", "moe").code == 0
    models = served("moe")
    assert models == {"base": moextend.load("moe").base_fingerprint()}
    assert "belongs to another base" in cli("serve", "moe", "-e", "skill", "--port", "0").err


def test_damaged_exported_folders_are_one_line(cli: Cli) -> None:
    extension("skill")
    assert cli("export", "skill", "--base", "tiny", "--as", "moextend", "--out", "linked").code == 0
    config = Path("linked/config.json")
    record = json.loads(config.read_text())
    for change, says in (
        ({"format": 99}, "format 99"),
        ({"base": "nowhere/at/all"}, "nowhere/at/all"),
        ({"extensions": [{"name": "skill", "folder": "../skill"}]}, "not the name of a folder"),
    ):
        config.write_text(json.dumps(record | change))
        refused = cli("serve", "linked", "--port", "0")
        assert (refused.code, refused.err.count("\n")) == (2, 1) and says in refused.err, refused.err


def test_versions_have_names_of_their_own(cli: Cli, served: Served) -> None:
    extension("skill")
    extension("other")
    plain = served("tiny", "-e", "skill", "-e", "other:0.25")
    named = served("tiny", "-e", "skill", "-e", "v1=skill", "-e", "v2=other:0.25")
    assert list(named) == ["base", "skill", "v1", "v2:0.25"]
    assert named["v1"] == named["skill"] == plain["skill"] and named["v2:0.25"] == plain["other:0.25"]
    for wrong in ("skill=other", "base=other", "auto=other", "a+b=other", "=other", "v2="):
        refused = cli("serve", "tiny", "-e", "skill", "-e", wrong, "--port", "0")
        assert (refused.code, refused.err.count("\n")) == (2, 1), (wrong, refused.err)


@pytest.mark.parametrize("key", ["schlüssel", "a b", "a\tb"])
def test_a_key_that_no_client_can_send_is_refused(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    refused = cli("serve", "tiny", "--api-key", key, "--port", "0")
    monkeypatch.setenv("MOEXTEND_API_KEY", key)
    from_environment = cli("serve", "tiny", "--port", "0")
    for found in (refused, from_environment):
        assert (found.code, found.err.count("\n")) == (2, 1) and "MOEXTEND_API_KEY" in found.err
        assert key not in found.err
