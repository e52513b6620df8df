"""kill -9 of workers and of the command at any moment: the same command continues to the same results."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded

from . import workspace
from .hosts import until
from .test_damages import results

METHODS = {"lora": "lora-s0", "moextend:scope=auto": "moextend+scope-auto-s0"}
DEEPEST = 90
"""File operations of a worker, about as many as a run of two stages has."""


class Command:
    """`moextend bench run small` in a workspace, in forked processes."""

    def __init__(self, server: str, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.output = folder.with_name("output")

    def start(self, method: str, **environment: str) -> Any:
        """Starts the command; its connection and process."""
        order = preloaded.order("cli", "bench", "run", "small", "-m", method, **environment)
        with self.output.open("wb") as output:
            streams = (0, output.fileno(), output.fileno())
            client = preloaded.connect(self.server, {**order, "folder": str(self.folder)}, streams)
        return client, preloaded.pid_of(client)

    def run(self, method: str, **environment: str) -> int:
        """Runs the command to its end; its exit status."""
        client, _ = self.start(method, **environment)
        return preloaded.status_of(client)

    def finish(self, method: str) -> dict[str, Any]:
        """What the run holds in the end."""
        assert self.run(method) == 0, self.output.read_text()
        assert "Traceback" not in self.output.read_text()
        return results(self.folder / "runs/small" / METHODS[method])


@pytest.fixture
def command(fork_server: str, tmp_path: Path) -> Command:
    return Command(fork_server, workspace.make(tmp_path / "w"))


@pytest.fixture(scope="module")
def undisturbed(
    fork_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """What a method's run holds that nobody kills."""
    command = Command(fork_server, workspace.make(tmp_path_factory.mktemp("undisturbed") / "w"))
    return cache(command.finish)


def worker_of(folder: Path, method: str) -> int:
    """The process that works on the run; 0 where there is none."""
    try:
        status = json.loads((folder / "runs/small" / METHODS[method] / "status.json").read_text())
        return int(status["pid"]) if status["state"] == "running" and alive(status["pid"]) else 0
    except (OSError, ValueError, KeyError):
        return 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(*pids: int) -> bool:
    return not any(alive(pid) for pid in pids)


def started_or_gone(folder: Path, method: str, parent: int) -> bool:
    return worker_of(folder, method) > 0 or not alive(parent)


@pytest.mark.long  # 46 s and more; the next test kills one worker
@pytest.mark.parametrize("method", ["lora", "moextend:scope=auto"])
def test_workers_killed_at_file_operations(
    command: Command, undisturbed: Callable[[str], dict[str, Any]], method: str
) -> None:
    """Before, within or after a write, a rename, a removal: where a half-made file can be left."""
    draw, kills, deepest = random.Random(method), 0, DEEPEST
    while kills < 6:
        if command.run(method, KILL_AT=str(draw.randrange(1, deepest))) == 0:
            shutil.rmtree(command.folder / "runs")  # it came to its end before
            deepest = DEEPEST
            continue
        kills += 1
        deepest = 30
        assert "was killed by SIGKILL" in command.output.read_text(), command.output.read_text()
    assert command.finish(method) == undisturbed(method)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["worker", pytest.param("parent", marks=pytest.mark.long)])
def test_killed_at_any_time(
    command: Command, undisturbed: Callable[[str], dict[str, Any]], whom: str
) -> None:
    """The worker, or the command that started it, at moments that no code chooses; the command is repeated at once."""
    draw, kills, method = random.Random(whom), 0, "lora"
    while kills < 4:
        client, parent = command.start(method)
        until(partial(started_or_gone, command.folder, method, parent))
        time.sleep(draw.uniform(0, 0.8))
        worker = worker_of(command.folder, method)
        if not worker:
            assert preloaded.status_of(client) == 0, command.output.read_text()
            shutil.rmtree(command.folder / "runs")
            continue
        os.kill(parent if whom == "parent" else worker, signal.SIGKILL)
        assert preloaded.status_of(client) == (-signal.SIGKILL if whom == "parent" else 1)
        until(partial(gone, worker))
        kills += 1
    assert command.finish(method) == undisturbed(method)


def contents(folder: Path) -> dict[str, Any]:
    return {run.name: results(run) for run in sorted((folder / "runs/tiny").iterdir()) if run.is_dir()}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_kills_of_the_embedded_default(tmp_path: Path) -> None:
    """The true command with its true workers: `moextend bench run tiny --method lora --method moextend`."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = "bench run tiny --method lora --method moextend --steps 20 --limit 20 --jobs 1"
    line = [sys.executable, "-m", "moextend", *command.split()]
    modules = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": modules}

    def start(folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(
            line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )  # fmt: skip

    began = time.monotonic()
    assert start(whole).wait() == 0
    seconds = time.monotonic() - began
    draw, kills = random.Random(0), 0
    while kills < 10:
        process = start(broken)
        time.sleep(draw.uniform(0.3, 0.6) * seconds if not kills % 5 else draw.uniform(1, 12))
        workers = [pid for pid in children(process.pid) if alive(pid)]
        if process.poll() is not None:
            shutil.rmtree(broken / "runs", ignore_errors=True)
            continue
        victim = draw.choice([process.pid, *workers])
        os.kill(victim, signal.SIGKILL)
        kills += 1
        process.communicate()
        until(partial(gone, *workers))
    process = start(broken)
    output = process.communicate()[1].decode()
    assert process.returncode == 0 and "Traceback" not in output, output
    assert contents(broken) == contents(whole)


def children(parent: int) -> list[int]:
    """The processes that `parent` started."""
    found = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in found.read_text().split()] if found.exists() else []
