"""Two hosts on one run: one works, a lost one is replaced, and one that comes back writes nothing.

The quick tests of these rules, in one process, are those of tests/bench/run/test_leases.py and test_opening.py.
"""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moextend.util.lease import VARIABLE

from . import hosts, workspace
from .hosts import Command, Host, until
from .test_damages import results

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SECONDS = 8.0
"""Time after which a host takes over."""
RUN = "runs/small/lora-s0"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    """Two hosts."""
    if reason := hosts.refused():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts")
    with hosts.host("nodeA", folder) as first, hosts.host("nodeB", folder) as second:
        yield first, second


def start(host: Host, folder: Path, *, steps: int = 3) -> Command:
    arguments = ("bench", "run", "small", "-m", "lora", "--steps", str(steps))
    return host.command(folder, *arguments, **{VARIABLE: f"{SECONDS:g}"})


@pytest.fixture(scope="module")
def undisturbed(pair: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = workspace.make(tmp_path_factory.mktemp("undisturbed") / "w")
    command = start(pair[1], folder)
    assert command.code() == 0, command.text
    return results(folder / RUN)


def status(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / RUN / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def works(folder: Path, host: Host) -> bool:
    found = status(folder)
    return found.get("state") == "running" and found.get("host") == host.name


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files of the run, with their times, but the log, which tells what both hosts did."""
    found = sorted((folder / RUN).rglob("*"))
    paths = [path for path in found if path.is_file() and path.name != "worker.log"]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_two_hosts_that_start_one_run_at_once(pair: tuple[Host, Host], tmp_path: Path) -> None:
    folder = workspace.make(tmp_path / "w")
    commands = [start(host, folder, steps=100) for host in pair]
    codes = [command.code() for command in commands]
    assert sorted(codes)[0] == 0 and sorted(codes)[1] in (1, 2), [command.text for command in commands]
    winner = codes.index(0)
    refusal = commands[1 - winner].text
    assert "Traceback" not in refusal and refusal.count("another process is working on this run") == 1, (
        refusal
    )
    assert re.search(rf"\(process \d+ on {pair[winner].name}\)", refusal), refusal
    assert start(pair[1 - winner], folder, steps=100).code() == 0, "it is done, also for the other host"


def test_a_run_of_a_living_host_is_refused(pair: tuple[Host, Host], tmp_path: Path) -> None:
    folder = workspace.make(tmp_path / "w")
    first = start(pair[0], folder, steps=400)
    until(lambda: works(folder, pair[0]))
    pid = status(folder)["pid"]
    second = start(pair[1], folder, steps=400)
    assert second.code() == 2
    assert f"another process is working on this run (process {pid} on nodeA)" in second.text
    shown = pair[1].command(folder, "bench", "status", COLUMNS="160")
    assert shown.code() == 0 and f"nodeA ({pid})" in shown.text and "running" in shown.text, shown.text
    pair[0].send(signal.SIGKILL)
    first.code()


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_host_is_replaced(
    pair: tuple[Host, Host], tmp_path: Path, undisturbed: dict[str, Any], seed: int
) -> None:
    folder = workspace.make(tmp_path / "w")
    first = start(pair[0], folder)
    until(lambda: works(folder, pair[0]))
    time.sleep(random.Random(seed).uniform(0, 1))
    pair[0].send(signal.SIGKILL)
    first.code()
    began = time.monotonic()
    second = start(pair[1], folder)
    assert second.code() == 0, second.text
    held = not works(folder, pair[0])
    assert held and results(folder / RUN) == undisturbed
    if status(folder)["host"] == "nodeB":  # else it was done before the kill
        assert time.monotonic() - began > SECONDS


@pytest.mark.parametrize("seed", range(4))
def test_a_host_that_comes_back_writes_nothing(
    pair: tuple[Host, Host], tmp_path: Path, undisturbed: dict[str, Any], seed: int
) -> None:
    """All its processes are suspended at a random moment, and go on when the other host has taken over or is done."""
    folder, draw = workspace.make(tmp_path / "w"), random.Random(seed)
    first = start(pair[0], folder)
    until(lambda: works(folder, pair[0]))
    time.sleep(draw.uniform(0, 0.8))
    pair[0].send(signal.SIGSTOP)
    second = start(pair[1], folder)
    if seed % 2:
        until(lambda: status(folder).get("host") == "nodeB" or status(folder).get("state") == "done")
        pair[0].send(signal.SIGCONT)
        code = first.code()
        assert second.code() == 0, second.text
    else:
        assert second.code() == 0, second.text
        before = contents(folder)
        pair[0].send(signal.SIGCONT)
        code = first.code()
        assert contents(folder) == before
    assert results(folder / RUN) == undisturbed
    if status(folder)["host"] == "nodeB":
        assert code == 1 and "Traceback" not in first.text
        assert "the lease of process" in first.text and "is lost" in first.text, first.text
