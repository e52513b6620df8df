"""Runs whose text tasks are scored by servers that they start: the same cells, proved, and refused without proof."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report.collect import collect, some
from moextend.bench.report.notes import backend_notes
from moextend.bench.run import runner, servers
from moextend.bench.run.complete import lacks
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import PARITY, RunDir
from moextend.bench.run.servers import started
from moextend.bench.score.served.client import Client, ServerFailed
from moextend.bench.store.node import OFF
from tests.bench.score.served.conftest import ROOT, stock_command
from tests.bench.small import opened, small_workspace

__all__ = ["stock_command"]

Backend = Callable[[str], dict[str, Any]]
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]  # 50 s; test_own_server.py has a quick case


@pytest.fixture(scope="module")
def backend(stock_command: tuple[str, ...]) -> Backend:
    """Settings of a backend that starts servers of a folder."""

    def of(words: str) -> dict[str, Any]:
        command = f"{shlex.join(stock_command)} {words}"
        return {"backend": "openai", "serve": command, "tasks": "text", "parity": 4}

    return of


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """Each run trains its own stages; the servers find the tests' package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OFF, "off")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    return small_workspace(folder, ["tiny-counting"], ["tiny-facts"], limit=12, steps=3)


def prepared(workspace: Path, runs: str, backend: dict[str, Any] | None = None) -> RunDir:
    return opened(workspace, "full-ft", runs, backend=backend)


@pytest.fixture(scope="module")
def in_process(workspace: Path) -> RunDir:
    run = prepared(workspace, "plain")
    runner.run(run.folder)
    return run


@pytest.fixture(scope="module")
def served(workspace: Path, backend: Backend) -> RunDir:
    run = prepared(workspace, "served", backend("{folder} {port}"))
    runner.run(run.folder)
    return run


@pytest.mark.slow
def test_a_run_scored_by_servers_has_the_cells_of_one_in_process(in_process: RunDir, served: RunDir) -> None:
    assert served.config.digest == in_process.config.digest, "the backend is no part of what a run is"
    assert "backend" not in in_process.config_path.read_text()
    assert "parity" not in (in_process.folder / "scores.jsonl").read_text()
    assert not (in_process.folder / PARITY).exists()
    mine, theirs = in_process.cells(), served.cells()
    assert set(mine) == set(theirs) and read_status(served.folder).state == "done"
    for key, cell in theirs.items():
        assert cell.value == mine[key].value and cell.stderr == mine[key].stderr
        assert cell.readings == pytest.approx(mine[key].readings)
        assert cell.weights == mine[key].weights
        assert (cell.backend, cell.parity is None) == (
            ("openai", False) if key[1] == "tiny-facts" else (None, True)
        )
    assert theirs[1, "tiny-facts"].weights != theirs[0, "tiny-facts"].weights
    checks = served.parities()
    (base, stage) = (checks[str(theirs[index, "tiny-facts"].parity)] for index in (0, 1))
    assert (base.stage, stage.stage, base.weights.base) == (0, 1, None)
    assert stage.weights.base is not None and stage.weights.base > 2e-3 > stage.weights.difference
    assert stage.engine == "transformers" and len(stage.items) == 4 and stage.answers == 4
    assert (stage.difference or 0) < 1e-4
    assert not list(served.folder.glob("served*")), "the exported folder is removed"
    assert not lacks(served)
    experiments = some(collect([in_process, served]))
    (note,) = backend_notes(experiments[0].results[:1] + collect([served])[0].results)
    assert "scored by transformers in 2 of 4 cells: weights proved, 8 sampled answers equal" in note


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
    assert servers.free_port() > 0
