"""The lease of a run folder: who may write, who is refused, and what the status of a run says."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.progress import LEASE, Progress, Unit, read_status
from moextend.bench.run.records import StageCost
from moextend.bench.run.rundir import RunDir, locked
from moextend.errors import LeaseLost
from moextend.util import files, lease
from moextend.util.lease import VARIABLE
from tests.bench.cells import cell_of
from tests.bench.conftest import MakeRun
from tests.bench.states import GONE, hold

CELL = cell_of(1, "colour", 50.0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2")


def test_the_runs_of_a_lost_host_are_waited_for_the_stated_time_and_at_once(make_run: MakeRun) -> None:
    runs = [make_run(seed=seed) for seed in range(4)]
    for run in runs:
        hold(run.folder)
    began = time.monotonic()
    with locked(runs):
        assert 2 <= time.monotonic() - began < 7, "8 one after the other"
        held = lease.holder_of(runs[0].folder / LEASE)
        assert held and held.pid == os.getpid()
    assert not [path for run in runs for path in run.folder.glob(f"{LEASE}*")]


@pytest.mark.parametrize("here", [{"start": 1, "pid": os.getpid()}, {"pid": GONE}])
def test_what_is_certainly_dead_is_taken_over_at_once(make_run: MakeRun, here: dict[str, Any]) -> None:
    """Also under another setting of the time: that of the holder counts."""
    run = make_run()
    hold(run.folder, host=socket.gethostname(), duration=3600.0, **here)
    with run.lock():
        pass


def changes(run: RunDir) -> dict[str, Callable[[], object]]:
    """All that changes files of a run."""
    scores = run.folder / "scores.jsonl"
    unit = Unit("train", 1, "colour", 3)
    return {
        "append_cell": lambda: run.append_cell(CELL),
        "write_facts": lambda: run.write_facts(task_identity="none"),
        "write_cost": lambda: run.write_cost(1, "colour", StageCost()),
        "config": lambda: run.read_config_file().write(run.config_path),
        "status": lambda: Progress(run.folder, [unit]).begin(unit),
        "remove": lambda: files.remove(scores),
        "repair": lambda: files.cut_torn_line(scores),
        "atomic": lambda: files.write_bytes(run.predictions / "x.jsonl", b"x"),
    }


@pytest.mark.parametrize("what", [*changes(RunDir(Path()))])
def test_a_process_that_lost_its_lease_writes_nothing(make_run: MakeRun, what: str) -> None:
    run = make_run()
    run.append_cell(CELL)
    run.stage_folder(1, "colour"), run.predictions
    with pytest.raises(LeaseLost, match="another process took it over"), run.lock():
        changes(run)[what]()  # as long as it is held, it may
        run.append_cell(CELL)
        hold(run.folder)
        before = contents(run.folder)
        with pytest.raises(LeaseLost, match="another process took it over"):
            changes(run)[what]()
        assert contents(run.folder) == before
    assert contents(run.folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_loss_interrupts_what_the_process_does(make_run: MakeRun) -> None:
    run = make_run()
    began = time.monotonic()
    with pytest.raises(LeaseLost, match="another process removed it"), run.lock():
        (run.folder / LEASE).unlink()
        time.sleep(30)
    assert time.monotonic() - began < 25


def running(folder: Path, **changes: Any) -> None:
    """Leaves the status of a process that trains."""
    unit = Unit("train", 1, "colour", 9)
    Progress(folder, [unit]).begin(unit)
    record = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**record, **changes}))


def test_the_status_is_that_of_the_process_that_holds_the_run(make_run: MakeRun) -> None:
    run = make_run()
    running(run.folder, host="nodeB", pid=1)
    hold(run.folder)
    status = read_status(run.folder)
    assert (status.state, status.host, status.pid, status.task) == ("running", "nodeA", 12, "colour")
    hold(run.folder, host=socket.gethostname(), pid=GONE)
    assert read_status(run.folder).state == "interrupted"
    (run.folder / LEASE).unlink()
    assert read_status(run.folder).state == "interrupted"


def test_a_host_that_is_silent_is_lost(make_run: MakeRun) -> None:
    run = make_run()
    past = time.time() - 100
    running(run.folder, host="nodeA", pid=12, heartbeat=past)
    os.utime(hold(run.folder), (past, past))
    status = read_status(run.folder)
    assert (status.state, status.host, status.heartbeat) == ("lost", "nodeA", past)
    os.utime(run.folder / LEASE)
    assert read_status(run.folder).state == "running", "it beats, though it writes no status"
