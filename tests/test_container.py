"""The Dockerfile: what it promises, and that the files it copies are enough to build the package."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "docker/install.sh"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def copied() -> list[str]:
    """Names that .dockerignore lets through."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines, "everything else is left out"
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def test_it_runs_the_command_and_not_as_root() -> None:
    (user,) = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert int(user) > 0
    assert 'ENTRYPOINT ["moextend"]' in DOCKERFILE and "moextend" in PROJECT["scripts"]
    (extras,) = re.findall(r"install \"\$3\[(.*)\]\"", INSTALL.read_text(encoding="utf-8"))
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert re.findall(r"/install.sh (\w+)", DOCKERFILE) == ["torch", "moextend", "check"]
    assert "HEALTHCHECK" in DOCKERFILE and '["moextend", "generate", "tiny"' in DOCKERFILE
    assert re.search(r"^ARG BASE_IMAGE=", DOCKERFILE, re.MULTILINE), "CPU or CUDA by a build argument"
    stages = DOCKERFILE.split("FROM ")[1:]
    assert len(stages) == 2 and all(stage.startswith("${BASE_IMAGE}") for stage in stages)
    assert "pip" not in stages[1] and "apt-get" in stages[1], "what builds is not in the image"


def copy(source: Path) -> None:
    """Copies what the image copies."""
    source.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", ".cache", "runs")
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, source / name)


@pytest.mark.slow
def test_what_is_copied_builds_the_package(tmp_path: Path) -> None:
    source = tmp_path / "src"
    copy(source)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= {"moextend/bench/run/worker.py", "moextend/content/registry/tiny.yaml"}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_what_the_image_installs_loads_a_model_and_serves(tmp_path: Path) -> None:
    """The steps of the Dockerfile in a new virtual environment; without TORCH_INDEX from pip's own index."""
    source, venv = tmp_path / "src", tmp_path / "venv"
    copy(source)
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "TORCH_INDEX")}
    for step in (["torch"], ["moextend", str(source)], ["check"]):
        command = [str(source / "docker/install.sh"), step[0], str(venv), *step[1:]]
        done = subprocess.run(
            command, cwd=tmp_path, env={**kept, **own}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1], "no answer"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    serve = [str(venv / "bin/moextend"), "serve", "tiny", "--port", str(port)]
    server = subprocess.Popen(serve, cwd=tmp_path, env=kept, stderr=subprocess.DEVNULL)
    healthy = [sys.executable, str(ROOT / "docker/healthy.py"), f"/proc/{server.pid}/cmdline"]
    try:
        end = time.monotonic() + 120
        while subprocess.run(healthy, capture_output=True, check=False).returncode:
            assert time.monotonic() < end and server.poll() is None, "the server does not answer"
            time.sleep(1)
        server.send_signal(signal.SIGSTOP)
        assert subprocess.run(healthy, capture_output=True, check=False).returncode
    finally:
        server.kill()
        server.wait()


class Health(HTTPServer):
    """Answers every request with `status`."""

    status = 200

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    server: Health

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Is silent."""


@pytest.fixture
def health() -> Iterator[Health]:
    with Health() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def is_healthy(folder: Path, *words: str, **environment: str) -> bool:
    """What the health check says where `words` are the first process."""
    path = folder / "cmdline"
    path.write_bytes("".join(f"{word}\0" for word in words).encode())
    command = [sys.executable, "-I", "-S", str(ROOT / "docker/healthy.py"), str(path)]
    return not subprocess.run(command, env={**os.environ, **environment}, capture_output=True).returncode


PROGRAM = ("/opt/moextend/bin/python", "/opt/moextend/bin/moextend")


def test_a_server_is_healthy_while_health_answers(health: Health, tmp_path: Path) -> None:
    port = str(health.server_port)
    serve = (*PROGRAM, "serve", "tiny", "-e", "facts", "--host", "0.0.0.0")
    dead = "http://127.0.0.1:9"
    assert is_healthy(tmp_path, *serve, "--port", port, http_proxy=dead, HTTP_PROXY=dead)
    assert is_healthy(tmp_path, *serve, f"--port={port}")
    assert is_healthy(tmp_path, "/sbin/docker-init", "--", "moextend", "serve", "--port", port, "tiny")
    assert health.asked == ["/health"] * 3
    health.status = 503
    assert not is_healthy(tmp_path, *serve, "--port", port)
    assert is_healthy(tmp_path, *PROGRAM, "bench", "run", "tiny"), "what does not serve is healthy"
