"""Leases of shared files, and the disks that they meet: no hard links, lost answers, errors, late answers."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.errors import LeaseLost
from moextend.util import files, holder, lease
from moextend.util.holder import Holder
from moextend.util.lease_files import DISK, SIZE
from moextend.util.local_lock import LocalLock


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_makes_a_file_and_others_wait_for_it(tmp_path: Path) -> None:
    path, made, begun = tmp_path / "deep" / "features.bin", [], threading.Barrier(4)

    def work() -> None:
        begun.wait()
        with lease.first(path) as held:
            if not path.exists():
                made.append(held.holder.token)
                time.sleep(0.2)
                held.check()
                path.write_text("made")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(made) == 1 and path.read_text() == "made"
    assert names(path.parent) == ["features.bin", "features.bin.lease-4"], "nothing else is left"


def _count(path: Path, times: int) -> None:
    for _ in range(times):
        with lease.first(path):
            now = int(path.read_text() or 0)
            time.sleep(0.001)
            path.write_text(str(now + 1))


def test_processes_count_together(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    processes = [
        multiprocessing.get_context("fork").Process(target=_count, args=(path, 10)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert path.read_text() == "30"


def test_an_error_in_the_block_frees_the_lease(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lease.first(tmp_path / "x"):
        raise KeyError
    with lease.first(tmp_path / "x"):
        pass


def test_a_released_lease_is_no_permission(tmp_path: Path) -> None:
    with lease.first(tmp_path / "x") as held:
        held.check()
    with pytest.raises(LeaseLost, match="it was released"):
        held.check()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(number, "no links")

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "x-1"
    assert DISK.create(path, b"mine") and not DISK.create(path, b"theirs")
    assert path.read_bytes() == b"mine" and names(tmp_path) == ["x-1"]


def test_a_lost_answer_of_the_server_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that gets no answer asks again, and hears that the file exists: its own."""
    link = os.link

    def twice(*paths: Any) -> None:
        link(*paths)
        link(*paths)

    monkeypatch.setattr(os, "link", twice)
    assert DISK.create(tmp_path / "x-1", b"mine") and names(tmp_path) == ["x-1"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(Exception, match="no disk space left"), lease.first(tmp_path / "x"):
        pass
    assert names(tmp_path) == []


def away(*args: Any, **more: Any) -> None:
    raise OSError(errno.EIO, "the server is away")


class Late:
    """A clock that is set by hand, for a lease without a heartbeat thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(DISK, "clock", lambda: self.now)


def taken(name: Path) -> lease.Lease:
    found = lease.Claim(name).attempt()
    assert found
    return found


def test_a_holder_gives_up_before_others_take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Late(monkeypatch)
    held = taken(tmp_path / "x")
    clock.now += 39
    held.check()
    held.renew()
    clock.now += 39
    held.check()
    clock.now += 2
    with monkeypatch.context() as patch:
        patch.setattr(DISK, "create", away)
        with pytest.raises(LeaseLost, match="could not be renewed in time"):
            held.check()
    held.renew()
    with pytest.raises(LeaseLost):
        held.check()  # nothing revives it
    held.release()
    assert not lease.parsed((tmp_path / "x-1").read_bytes()).released  # type: ignore[union-attr]


@pytest.mark.parametrize("act", ["check", "renew"])
def test_a_late_holder_that_nobody_followed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """A machine that was suspended, or too busy for heartbeats: the process makes the next lease itself."""
    clock = Late(monkeypatch)
    held = taken(tmp_path / "x")
    for number in (2, 3):
        clock.now += 1000
        getattr(held, act)()
        held.check()
        assert names(tmp_path) == [f"x-{number}"] == [held.path.name]
    clock.now += 39
    held.renew()
    clock.now += 39
    held.check()
    held.release()
    assert lease.parsed((tmp_path / "x-3").read_bytes()).released  # type: ignore[union-attr]
    assert taken(tmp_path / "x").path.name == "x-4"


def test_a_late_holder_does_not_go_on_after_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Late(monkeypatch)
    monkeypatch.setattr(Holder, "life", lambda self: "unknown")
    held, claim = taken(tmp_path / "x"), lease.Claim(tmp_path / "x")
    assert claim.attempt() is None
    clock.now += 61
    other = claim.attempt()
    assert other
    other.check()
    with pytest.raises(LeaseLost, match="another process"):
        held.check()
    other.release()
    with pytest.raises(LeaseLost, match="another process"):
        held.check()
    assert names(tmp_path) == ["x-2"]


def test_a_heartbeat_that_arrives_late_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Late(monkeypatch)
    held = taken(tmp_path / "x")
    rewrite = DISK.rewrite

    def slow(*args: Any, **more: Any) -> None:
        rewrite(*args, **more)
        clock.now += 41

    monkeypatch.setattr(DISK, "rewrite", slow)
    monkeypatch.setattr(DISK, "create", away)
    held.renew()
    with pytest.raises(LeaseLost):
        held.check()


def test_heartbeats_that_fail_for_a_while_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Late(monkeypatch)
    held = taken(tmp_path / "x")

    with monkeypatch.context() as patch:
        patch.setattr(DISK, "rewrite", away)
        clock.now += 30
        held.renew()
        held.check()
    held.renew()
    clock.now += 30
    held.check()


def test_heartbeats_go_on_without_the_local_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without locks the lock is asked for at each heartbeat, and its server may be away."""
    monkeypatch.setenv(holder.VARIABLE, "2")

    def away(self: LocalLock) -> bool:
        raise OSError(errno.EIO, "the server is away")

    with lease.first(tmp_path / "x", lock=tmp_path / "lock") as held:
        monkeypatch.setattr(LocalLock, "acquire", away)
        end = time.monotonic() + 20
        while held.holder.beat < 3 and time.monotonic() < end:
            time.sleep(0.02)
        assert held.holder.beat >= 3


def test_a_lease_file_that_another_host_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = taken(tmp_path / "x")

    def stale(*args: Any, **more: Any) -> None:
        raise OSError(errno.ESTALE, "stale file handle")

    monkeypatch.setattr(DISK, "rewrite", stale)
    held.renew()
    with pytest.raises(LeaseLost, match="another process removed it"):
        held.check()


def test_a_holder_that_comes_back_during_the_takeover_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Late(monkeypatch)
    monkeypatch.setattr(Holder, "life", lambda self: "unknown")
    held = taken(tmp_path / "x")
    claim = lease.Claim(tmp_path / "x")
    assert claim.attempt() is None
    create = DISK.create

    def meanwhile(path: Path, content: bytes) -> bool:
        with (tmp_path / "x-1").open("rb+") as file:
            file.write(lease._encoded(held.holder.model_copy(update={"beat": 7})))
        return create(path, content)

    monkeypatch.setattr(DISK, "create", meanwhile)
    clock.now += 61
    assert claim.attempt() is None
    assert names(tmp_path) == ["x-1"]


def test_a_rewrite_goes_to_the_own_file_only(tmp_path: Path) -> None:
    held = taken(tmp_path / "x")
    (tmp_path / "x-1").unlink()
    (tmp_path / "x-1").write_bytes(b"another process's")
    held.renew()
    assert (tmp_path / "x-1").read_bytes() == b"another process's"


def test_a_record_has_one_length_and_changes_at_its_end(tmp_path: Path) -> None:
    holder = Holder.here(60).model_copy(update={"host": "h" * 64})
    first = lease._encoded(holder)
    later = lease._encoded(holder.model_copy(update={"beat": 10**9, "released": True}))
    assert len(first) == len(later) == SIZE
    assert first.partition(b'"beat"')[0] == later.partition(b'"beat"')[0]
    torn = later[: first.index(b'"released"')] + first[first.index(b'"released"') :]
    assert (found := lease.parsed(torn)) is None or found.token == holder.token


def test_a_local_lock_excludes_and_is_freed(tmp_path: Path) -> None:
    first, second = LocalLock(tmp_path / "lock"), LocalLock(tmp_path / "lock")
    assert first.acquire() and first.acquire() and not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: files.write_text(path, "x"),
        lambda path: files.append_lines(path, [1]),
        files.cut_torn_line,
        files.remove,
        files.may_change,
    ],
)
def test_a_guard_covers_what_lies_below_its_folder(tmp_path: Path, change: Callable[[Path], object]) -> None:
    class Refused(Exception):
        pass

    def refuse() -> None:
        raise Refused

    inside, beside = tmp_path / "run" / "a" / "b.jsonl", tmp_path / "run2" / "b.jsonl"
    for path in (inside, beside):
        path.parent.mkdir(parents=True)
        path.write_text("[1]\n")
    with files.guarded(tmp_path / "run", refuse):
        change(beside)
        with pytest.raises(Refused):
            change(inside)
        assert inside.read_text() == "[1]\n"
    change(inside)


def test_the_own_process_is_alive_and_a_hidden_one_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    me = Holder.here(60)
    assert me.life() == "alive"
    monkeypatch.setattr("moextend.util.holder._stat", lambda pid: None)
    assert me.life() == "unknown"


def test_a_suspended_process_is_seen(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    try:
        from moextend.util.holder import born

        other = Holder.here(60).model_copy(update={"pid": pid, "born": born(pid)})
        assert other.life() == "alive"
        os.kill(pid, 19)
        os.waitpid(pid, os.WUNTRACED)
        assert other.life() == "suspended"
        os.kill(pid, 9)
        end = time.monotonic() + 20
        while other.life() != "dead" and time.monotonic() < end:
            time.sleep(0.01)
        assert other.life() == "dead", "a zombie writes nothing"
    finally:
        os.waitpid(pid, 0)
