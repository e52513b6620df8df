"""`moextend bench run --backend`: wrong options end with code 2 and one line, before anything is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moextend.bench.run.servers import free_port
from tests.cli.conftest import Cli

WRONG = [
    ("--backend vllm", "--backend: no backend 'vllm'"),
    ("--backend openai", "needs either server"),
    ("--backend transformers -b server=http://h/v1", "server is for backend: openai"),
    ("-b server=nowhere", "--backend: server: is not an address"),
    ("-b server=http://h/v1 -b 'serve=x {port}'", "needs either server"),
    ("-b server=http://h/v1 -b size=3", "--backend-option: no setting 'size'"),
    ("-b server=http://h/v1 -b concurrency", "is not KEY=VALUE"),
    ("-b server=http://h/v1 -b concurrency=many", "concurrency"),
    ("-b server=", "is not KEY=VALUE"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_wrong_options_end_in_one_line(cli: Cli, tmp_path: Path, options: str, says: str) -> None:
    import shlex

    found = cli("bench", "run", "tiny", "--method", "lora", *shlex.split(options))
    assert found.code == 2, found.err
    assert says in found.err and "Traceback" not in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


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
