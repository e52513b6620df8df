"""Workers whose parent process is killed, hung up or stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run import launch as launching
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from tests.bench.conftest import MakeRun

PARENT = [sys.executable, str(Path(__file__).with_name("launching.py"))]

Start = Callable[..., tuple[subprocess.Popen[Any], RunDir]]


@pytest.fixture
def start(make_run: MakeRun) -> Iterator[Start]:
    """Starts a process that launches a run of a method; returns once the run trains."""
    started: list[tuple[subprocess.Popen[Any], RunDir]] = []

    def begin(
        method: str = "slow", *, shell: str | None = None, **options: Any
    ) -> tuple[subprocess.Popen[Any], RunDir]:
        run = make_run(method, seed=len(started))
        command = [*PARENT, str(run.folder)]
        if shell:
            command = ["sh", "-c", shell, *command]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
        process = subprocess.Popen(command, **options)
        started.append((process, run))
        until(lambda: read_status(run.folder).phase == "train")
        return process, run

    yield begin
    for process, run in started:
        for pid in (process.pid, read_status(run.folder).pid):
            if pid and alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def until(true: Callable[[], bool], seconds: int = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return state(Path(f"/proc/{pid}")) not in "ZX"
    except OSError:
        return False


def state(folder: Path) -> str:
    """The letter of a process or thread, as in `man proc_pid_stat`."""
    return (folder / "stat").read_text().rpartition(")")[2].split()[0]


def ends(run: RunDir) -> str:
    """The state that the run's own worker writes before it ends."""
    pid = read_status(run.folder).pid
    assert pid
    until(lambda: not alive(pid))
    return recorded(run)


def recorded(run: RunDir) -> str:
    return (
        '"state": "' + (run.folder / "status.json").read_text().partition('"state": "')[2].partition('"')[0]
    )


INTERRUPTED = '"state": "interrupted'


def test_a_killed_parent_ends_its_worker(start: Start) -> None:
    process, run = start()
    process.kill()
    process.wait()
    assert ends(run) == INTERRUPTED, "in order: it reported so itself"
    assert len(run.cells()) == 3, "what was scored is kept"
    with run.lock():
        pass  # the same command can go on at once


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGQUIT, marks=pytest.mark.long), signal.SIGHUP, signal.SIGINT]
)
def test_a_signal_stops_parent_and_worker_in_order(start: Start, number: signal.Signals) -> None:
    process, run = start()
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert ends(run) == INTERRUPTED


def test_workers_import_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The true worker's command, in a folder that has a module of the standard library's name."""
    (tmp_path / "select.py").write_text("open('executed', 'w').close()")
    (tmp_path / "own.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f":{Path(launching.__file__).parents[3]}:")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    interpreter, *options = launching.WORKER[: launching.WORKER.index("-m")]
    look = (
        "import select, sys, moextend.bench.run.worker; "
        "print('' in sys.path, [path for path in sys.path if path == sys.argv[1]])"
    )
    asked = ["-m", "own"]
    environment = launching._environment(1)
    found = subprocess.run(
        [interpreter, *options, "-c", look, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "False []\n"
    # and what a worker starts in its turn, with no option of ours
    inner = subprocess.run([interpreter, *asked], env=environment, capture_output=True, text=True)
    assert "No module named own" in inner.stderr
    assert not (tmp_path / "executed").exists()
    assert options == ["-P"] and environment["PYTHONPATH"] == str(Path(launching.__file__).parents[3])
