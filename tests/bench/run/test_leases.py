"""The lease of a run folder: who may write, who is refused, and what the status of a run says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run import progress
from moextend.bench.run.liveness import LEASE, LOCK, holder_of
from moextend.bench.run.progress import Progress, Unit, mark_failed, read_status
from moextend.bench.run.records import StageCost
from moextend.bench.run.rundir import Cell, RunDir, locked
from moextend.errors import InputError, LeaseLost, RunConflict, RunFailed
from moextend.util import files, lease
from moextend.util.holder import VARIABLE, Holder, seconds
from moextend.util.local_lock import LocalLock
from tests.bench.conftest import MakeRun

ELSEWHERE = {"host": "nodeA", "boot": "another-boot", "machine": "another", "pid": 12}
CELL = Cell(stage=1, task="colour", value=50.0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2")


def hold(folder: Path, number: int = 1, **changes: Any) -> Holder:
    """Leaves a lease in the folder, as a process of another host does."""
    holder = Holder.here(seconds()).model_copy(update={**ELSEWHERE, **changes})
    (folder / f"{LEASE}-{number}").write_bytes(lease._encoded(holder))
    return holder


@contextmanager
def beating(folder: Path, holder: Holder) -> Iterator[None]:
    """Another host that renews its lease."""
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(0.1):
            number += 1
            content = lease._encoded(holder.model_copy(update={"beat": number}))
            with (folder / f"{LEASE}-1").open("rb+", buffering=0) as file:
                file.write(content)

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_a_living_process_of_another_host_is_named(make_run: MakeRun) -> None:
    run = make_run()
    (run.folder / f"{LEASE}-1").unlink()
    with (
        beating(run.folder, hold(run.folder)),
        pytest.raises(RunConflict, match=r"working on this run \(process 12 on nodeA\)") as refused,
        run.lock(),
    ):
        pass
    assert refused.value.exit_code == 2 and refused.value.where == str(run.folder)


def test_a_silent_process_of_another_host_is_waited_for_the_stated_time(make_run: MakeRun) -> None:
    run = make_run()
    (run.folder / f"{LEASE}-1").unlink()
    hold(run.folder)
    began = time.monotonic()
    with run.lock():
        assert time.monotonic() - began >= 2
        held = holder_of(run.folder)
        assert held and held[0].pid == os.getpid()
    assert [path.name for path in run.folder.glob(f"{LEASE}*")] == [f"{LEASE}-2"]


def test_the_runs_of_a_lost_host_are_waited_for_at_once(make_run: MakeRun) -> None:
    runs = [make_run(seed=seed) for seed in range(8)]
    for run in runs:
        hold(run.folder, number=7)
    began = time.monotonic()
    with locked(runs):
        assert 2 <= time.monotonic() - began < 14, "16 one after the other"


@pytest.mark.parametrize(
    "here",
    [{"born": "1"}, {"pid": 2**22 + 1}, {"boot": "before the reboot"}, {"pid": 0}],
    ids=["another process with its number", "no process", "rebooted", "damaged"],
)
def test_what_is_certainly_dead_is_taken_over_at_once(make_run: MakeRun, here: dict[str, Any]) -> None:
    run, me = make_run(), Holder.here(60)
    if "boot" in here and not me.machine:
        pytest.skip("this machine has no network hardware by which it is known after a reboot")
    hold(run.folder, number=3, seconds=3600.0, **{**{key: getattr(me, key) for key in ELSEWHERE}, **here})
    with run.lock():
        pass


@pytest.mark.parametrize("other", [{"namespace": "4026539999"}, {"boot": "x", "machine": ""}])
def test_what_cannot_be_judged_is_not_taken_over_at_once(make_run: MakeRun, other: dict[str, Any]) -> None:
    """A container has the boot id of its host, and numbers of processes of its own; names of machines may agree."""
    run, me = make_run(), Holder.here(60)
    here = {key: getattr(me, key) for key in ELSEWHERE} | {"pid": 2**22 + 1}
    hold(run.folder, number=3, **{**here, **other})
    began = time.monotonic()
    with run.lock():
        assert time.monotonic() - began >= 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]\n", b"\0" * 1024, b"\xff\xfe{\0", b"[" * 4096])
def test_a_damaged_lease_is_waited_for_and_replaced(
    make_run: MakeRun, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.5)
    run = make_run()
    (run.folder / f"{LEASE}-4").write_bytes(content)
    with run.lock():
        assert (run.folder / f"{LEASE}-5").exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_something_else_of_that_name_blocks_nobody(
    make_run: MakeRun, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.5)
    run = make_run()
    make(run.folder / f"{LEASE}-4")
    with run.lock():
        assert (run.folder / f"{LEASE}-5").exists()


def test_a_process_of_a_release_without_leases_is_refused_by_name(make_run: MakeRun) -> None:
    run = make_run()
    code = (
        "import sys, filelock, json; lock = filelock.FileLock(sys.argv[1] + '/.lock'); lock.acquire()\n"
        "open(sys.argv[1] + '/owner.json', 'w').write('{\"pid\": 77, \"host\": \"old\"}')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    old = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert old.stdout and old.stdout.readline() == b"held\n"
    with pytest.raises(RunConflict, match="process 77 on old"), run.lock():
        pass
    old.kill()
    old.communicate()
    with run.lock():
        assert not (run.folder / "owner.json").exists()


def test_a_suspended_process_keeps_the_local_lock_and_stops_nobody(make_run: MakeRun) -> None:
    """Its lease was taken over and released: by the command, before its worker begins."""
    run = make_run()
    suspended = LocalLock(run.folder / LOCK)
    assert suspended.acquire()
    with run.lock():
        assert holder_of(run.folder)
    suspended.release()


def test_a_process_of_a_release_without_leases_refuses_this_one(make_run: MakeRun) -> None:
    import filelock

    run = make_run()
    with run.lock(), pytest.raises(filelock.Timeout):
        filelock.FileLock(run.folder / ".lock").acquire(timeout=0)


def changes(run: RunDir) -> dict[str, Callable[[], object]]:
    """All that changes files of a run."""
    scores = run.folder / "scores.jsonl"
    unit = Unit("train", 1, "colour", 3)
    return {
        "append_cell": lambda: run.append_cell(CELL),
        "drop_cells": lambda: run.drop_cells([(1, "colour")]),
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
        hold(run.folder, following(run.folder))
        before = contents(run.folder)
        with pytest.raises(LeaseLost, match="another process took it over"):
            changes(run)[what]()
        assert contents(run.folder) == before
    assert contents(run.folder) == before


def following(folder: Path) -> int:
    """The number of the next lease."""
    return 1 + max(int(path.name.rpartition("-")[2]) for path in folder.glob(f"{LEASE}-*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_lines_of_another_process_are_not_cut_after_a_loss(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is suspended while it syncs a line wakes up when the file has more lines."""
    run, sync = make_run(), os.fsync
    path = run.folder / "scores.jsonl"

    def late(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink() == path:
            hold(run.folder, following(run.folder))
            with path.open("ab") as file:
                file.write(b"theirs\n")
            raise KeyboardInterrupt
        sync(fd)

    monkeypatch.setattr(os, "fsync", late)
    with pytest.raises(LeaseLost), run.lock():
        run.append_cell(CELL)
    assert path.read_bytes().endswith(b"theirs\n")


def test_the_loss_interrupts_what_the_process_does(make_run: MakeRun) -> None:
    run = make_run()
    began = time.monotonic()
    with pytest.raises(LeaseLost, match="another process removed it"), run.lock():
        for path in run.folder.glob(f"{LEASE}-*"):
            path.unlink()
        time.sleep(30)
    assert time.monotonic() - began < 25


def test_an_interrupt_by_the_user_stays_one(make_run: MakeRun) -> None:
    with pytest.raises(KeyboardInterrupt), make_run().lock():
        raise KeyboardInterrupt


@pytest.mark.parametrize("value", ["0", "-3", "1e9", "nan", "soon", "1"])
def test_a_wrong_time_is_refused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    run = make_run()
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InputError, match="not a number of seconds from 2 to 3600"), run.lock():
        pass


def running(folder: Path, **changes: Any) -> None:
    """Leaves the status of a process that trains."""
    unit = Unit("train", 1, "colour", 9)
    Progress(folder, [unit]).begin(unit)
    record = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**record, **changes}))


def test_the_status_names_the_host_and_the_process(make_run: MakeRun) -> None:
    run = make_run()
    hold(run.folder, 5)
    running(run.folder, host="nodeA", pid=12)
    status = read_status(run.folder)
    assert (status.state, status.host, status.pid, status.task) == ("running", "nodeA", 12, "colour")


def test_a_host_that_is_silent_is_lost(make_run: MakeRun) -> None:
    run = make_run()
    hold(run.folder, 5)
    past = time.time() - 100
    running(run.folder, host="nodeA", pid=12, heartbeat=past)
    os.utime(run.folder / f"{LEASE}-5", (past, past))
    status = read_status(run.folder)
    assert (status.state, status.host, status.heartbeat) == ("lost", "nodeA", past)
    os.utime(run.folder / f"{LEASE}-5")
    assert read_status(run.folder).state == "running", "it beats, though it writes no status"


def test_the_status_of_the_former_process_is_not_that_of_the_next(make_run: MakeRun) -> None:
    run = make_run()
    running(run.folder, host="nodeB", pid=1)
    hold(run.folder, 5)
    assert read_status(run.folder).host == "nodeA"
    me = {key: getattr(Holder.here(2), key) for key in ELSEWHERE}
    hold(run.folder, 6, **{**me, "pid": 2**22 + 1})
    assert read_status(run.folder).state == "interrupted"
    hold(run.folder, 7, released=True)
    running(run.folder, pid=2**22 + 1)
    assert read_status(run.folder).state == "interrupted"


def test_a_suspended_process_of_this_host_is_lost(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    past = time.time() - 100
    hold(run.folder, 5, host=socket.gethostname())
    running(run.folder, heartbeat=past)
    os.utime(run.folder / f"{LEASE}-5", (past, past))
    for life, state in (
        ("alive", "running"),
        ("suspended", "lost"),
        ("dead", "interrupted"),
        ("unknown", "lost"),
    ):
        monkeypatch.setattr(Holder, "life", lambda self, life=life: life)
        assert read_status(run.folder).state == state


def test_a_failure_is_not_noted_in_the_run_of_another_process(make_run: MakeRun) -> None:
    run = make_run()
    hold(run.folder, 5)
    running(run.folder, host="nodeA", pid=12)
    mark_failed(run.folder, RunFailed("the worker was killed."))
    assert read_status(run.folder).state == "running"


def test_a_lost_lease_leaves_the_status_of_the_next_process(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(LeaseLost), run.lock(), Progress(run.folder, []):
        hold(run.folder, following(run.folder))
        before = (run.folder / progress.STATUS).read_bytes()
        time.sleep(30)
    assert (run.folder / progress.STATUS).read_bytes() == before
