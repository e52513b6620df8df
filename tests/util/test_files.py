"""A file is written completely or not at all, whenever an interrupt comes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from moextend.errors import LeaseLost
from moextend.util import files

EVENTS = ("call", "c_return")
"""Where the interpreter looks for signals: at the beginning of a function, and after a call of one that is compiled."""


LEFT_OUT = (__file__, contextmanager.__code__.co_filename)
"""Files whose moments do not count. Between the end of `__enter__` and its block only the interpreter can help."""


@contextmanager
def interrupted(at: int) -> Iterator[list[bool]]:
    """Context with an interrupt at the moment `at` of those at which one can come; a list with whether it came."""
    moments, done = count(), [False]

    def look(frame: Any, event: str, argument: object) -> None:
        counts = event in EVENTS and frame.f_code.co_filename not in LEFT_OUT
        if counts and next(moments) == at and not done[0]:
            done[0] = True
            raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        yield done
    finally:
        sys.setprofile(None)


def a_file(folder: Path) -> None:
    files.write_text(folder / "a.json", "new")


def a_folder(folder: Path) -> None:
    with files.new_folder(folder / "made") as made:
        (made / "a.json").write_text("new")


def lost_at(number: int) -> Callable[[Path], None]:
    """`may_change` of a process whose lease is lost when it looks for the `number`-th time."""
    looks = count(1)

    def may_change(path: Path) -> None:
        if next(looks) == number:
            raise LeaseLost("it is lost.", where=str(path), hint="None.")

    return may_change


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("write", [a_file, a_folder])
def test_an_interrupt_at_any_moment_leaves_no_part_of_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], lost: bool
) -> None:
    for moment in range(1000):
        folder = tmp_path / str(moment)
        folder.mkdir()
        monkeypatch.setattr(files, "may_change", lost_at(2 if lost else 3))
        # OSError: shutil.rmtree closes a folder twice if it is interrupted.
        with suppress(KeyboardInterrupt, LeaseLost, OSError), interrupted(moment) as done:
            write(folder)
        left = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
        assert set(left) in (set(), {"a.json"}, {"made", "made/a.json"}), f"moment {moment}"
        assert all(path.read_text() == "new" for path in left.values() if path.is_file())
        if not done[0]:
            break
    assert 40 < moment < 999
    assert bool(left) != lost, "a write that is neither interrupted nor refused is there"
