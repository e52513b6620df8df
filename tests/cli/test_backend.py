"""`moextend bench run --backend`: a server that is not there, and what a run keeps of the options."""

from __future__ import annotations

import json
from pathlib import Path

from moextend.util.listening import free_port
from tests.cli.conftest import Cli


def test_a_server_that_is_not_there_is_noticed_before_a_run_is_made(cli: Cli, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    found = cli("bench", "run", "tiny", "--method", "lora", "-b", f"server={url}")
    assert found.code == 2 and "--backend-option server: the server does not answer" in found.err
    assert not (tmp_path / "runs").exists()


def test_the_settings_are_in_the_config_of_the_run_and_not_in_what_it_is(cli: Cli, tmp_path: Path) -> None:
    command = ("bench", "run", "tiny", "--method", "lora", "--prepare")
    assert cli(*command, "-b", "serve=vllm serve {folder} --port {port}", "-b", "parity=2").code == 0
    path = tmp_path / "runs" / "tiny" / "lora-s0" / "config.json"
    config = json.loads(path.read_text())
    assert config["backend"] == {
        "backend": "openai", "serve": "vllm serve {folder} --port {port}", "parity": 2,
    }  # fmt: skip
    assert cli(*command).code == 0
    again = json.loads(path.read_text())
    assert "backend" not in again and again["digest"] == config["digest"]
