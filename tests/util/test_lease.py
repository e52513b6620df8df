"""Leases of shared files, the life of a process, and guards of folders."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moextend.errors import LeaseLost
from moextend.util import files, lease


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_error_in_the_block_frees_the_lease_and_a_released_one_is_no_permission(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lease.first(tmp_path / "x"):
        raise KeyError
    with lease.first(tmp_path / "x") as held:
        held.check()
    with pytest.raises(LeaseLost, match="it was released"):
        held.check()


def test_a_late_heartbeat_that_nobody_followed_is_made_up_for(tmp_path: Path) -> None:
    """As after a suspension of the machine: the file is touched before a process that takes over looks again."""
    with lease.first(tmp_path / "x") as held:
        os.utime(held.path, (1.0, 1.0))
        held.check()
        assert time.time() - held.path.stat().st_mtime < 30


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


def test_a_process_is_alive_suspended_or_dead(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    try:
        assert lease.life(pid) == lease.life(os.getpid()) == "alive"
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        assert lease.life(pid) == "unknown"
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while lease.life(pid) != "dead" and time.monotonic() < end:
            time.sleep(0.01)
        assert lease.life(pid) == "dead", "a zombie writes nothing"
    finally:
        os.waitpid(pid, 0)
