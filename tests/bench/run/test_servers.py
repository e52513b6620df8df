"""Runs that are scored by servers: the cells of the run in process."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import moextend
from moextend.bench.exporting import stage
from moextend.bench.run.complete import lacks
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.servers import started
from moextend.bench.score.served.client import Client, ServerFailed
from moextend.bench.store.node import OFF
from moextend.cli.opening import ExtendedBase

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.bench.score.served.conftest import ROOT, stock_command
from tests.bench.small import answers, finished
from tests.serving.living import living

__all__ = ["stock_command"]

pytestmark = pytest.mark.timeout(1200)  # two runs with a training each
METHOD = "moextend:scope=own"
SEQUENCE = """
sequence: small
version: 1
base: {model: tiny, vision: tiny}
align: {task: tiny-captions, steps: 2, batch_size: 4, learning_rate: 3.0e-3}
stages: [{task: tiny-counting}]
retention: [tiny-facts]
train: {steps: 3, batch_size: 4, learning_rate: 3.0e-3}
scoring: {batch_size: 10, limit: 12}
settings: {moextend: {probe_steps: 1}}
"""


@pytest.fixture
def workspace(tmp_path: Path, small_world: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(OFF, "off")  # each run trains its own stages
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "small.yaml").write_text(SEQUENCE)
    yield tmp_path


def ran(workspace: Path, runs: str, backend: dict[str, Any] | None = None, method: str = METHOD) -> RunDir:
    return finished(workspace, method, runs, backend=backend)


@pytest.mark.slow  # two runs, each with a training
def test_images_are_scored_as_in_process(workspace: Path) -> None:
    plain = ran(workspace, "plain")
    opened = stage.opened(stage.find(f"small/{plain.folder.name}:1", workspace / "plain"), None)
    moextend.save_model(opened.model, workspace / "whole", base="tiny", encoders={"image": "tiny"})
    base = ExtendedBase(base=str(workspace / "whole")).open()
    with living(base) as server:
        served = ran(workspace, "served", {"backend": "openai", "server": f"{server.url}/v1", "parity": 4})
        names = [one["id"] for one in server.client().get("/v1/models").json()["data"]]
    assert names[:2] == ["base", "tiny-counting"], "the run attached its extension"
    mine, theirs = plain.cells(), served.cells()
    assert set(mine) == set(theirs) and not lacks(served)
    for key, cell in theirs.items():
        assert (cell.value, cell.stderr, cell.weights) == (
            mine[key].value,
            mine[key].stderr,
            mine[key].weights,
        )
        assert cell.backend == "openai" and cell.parity, key
    assert answers(served) == answers(plain)
    assert theirs[1, "tiny-counting"].weights != theirs[0, "tiny-counting"].weights


@pytest.mark.long  # 50 s: a server of another program for each row
def test_text_is_scored_by_servers_that_the_run_starts(
    workspace: Path, stock_command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    serve = f"{shlex.join(stock_command)} {{folder}} {{port}}"
    settings = {"backend": "openai", "serve": serve, "tasks": "text", "parity": 4}
    plain, served = ran(workspace, "plain", None, "full-ft"), ran(workspace, "served", settings, "full-ft")
    assert served.config.digest == plain.config.digest, "the backend is no part of what a run is"
    mine, theirs = plain.cells(), served.cells()
    assert {key: cell.value for key, cell in theirs.items()} == {
        key: cell.value for key, cell in mine.items()
    }
    assert {key for key, cell in theirs.items() if cell.backend == "openai"} == {
        (stage, "tiny-facts") for stage in (0, 1)
    }
    stage = served.parities()[str(theirs[1, "tiny-facts"].parity)]
    assert stage.engine == "transformers" and len(stage.items) == stage.answers == 4
    assert (stage.weights.base or 0) > 2e-3 > stage.weights.difference
    assert not list(served.folder.glob("served*")) and not lacks(served), "the exported folder is removed"


def test_a_server_that_does_not_start_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    def client(port: int) -> Client:
        return Client(f"http://127.0.0.1:{port}/v1")

    def start(command: str, patience: float = 60) -> None:
        with started(command, client, tmp_path / "log", patience=patience, tick=lambda: None):
            pass

    with pytest.raises(ServerFailed, match=r"ended with code 3 .* Its last line: no GPU"):
        start(f"{sys.executable} -c \"import sys; print('no GPU'); sys.exit(3)\" {{port}}")
    with pytest.raises(ServerFailed, match=r"ended with code \d+ before it answered"):
        start("no-such-program {port}")
    with pytest.raises(ServerFailed, match=r"does not answer within 0.1 seconds"):
        start(f"{sys.executable} -c 'import time; time.sleep(60)' {{port}}", patience=0.1)


def test_a_server_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, http.server\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(str(child.pid))\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'{\"data\": []}')\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
    )
    (tmp_path / "server.py").write_text(script)
    command = f"{sys.executable} {tmp_path / 'server.py'} {{port}}"
    with started(
        command,
        lambda port: Client(f"http://127.0.0.1:{port}/v1"),
        tmp_path / "log",
        patience=60,
        tick=lambda: None,
    ) as client:
        assert client.models() == []
        child = int((tmp_path / "pids").read_text())
        os.kill(child, 0)
    assert not client.is_ready()
    with pytest.raises(ProcessLookupError):
        while not Path(f"/proc/{child}/stat").read_text().split(") ")[1].startswith("Z"):
            os.kill(child, 0)
        raise ProcessLookupError
