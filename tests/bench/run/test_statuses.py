"""The table of runs as text: state, method and time left are never cut at any width."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moextend.bench.run import live
from moextend.bench.run.live import LiveView
from moextend.bench.run.records import State, Status
from moextend.bench.run.statuses import GOING, Row, layout, row_of
from tests.bench.conftest import MakeRun

METHODS = ("moextend:scope=auto", "moextend:scope=all", "moextend:scope=all,routing=slot", "lora")
LONG = "moextend:scope=all,routing=slot,layers=all,steps=400,memory=generic"


def rows(methods: Sequence[str] = METHODS, seeds: Sequence[str] = ("0",)) -> list[Row]:
    return [
        Row(method, seed, "running", "2/3", "learning tiny-counting 120/400", "59m 59s", 0.4)
        for method in methods
        for seed in seeds
    ]


def drawn(found: Sequence[Row], width: int | None) -> str:
    out = io.StringIO()
    Console(file=out, width=width or 10_000, color_system=None).print(layout(found, width).table())
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 50, 60, 80, 100, 120, None])
def test_state_method_and_time_left_are_whole(width: int | None) -> None:
    text = drawn(rows((*METHODS, LONG)), width)
    assert width is None or max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert text.count("running") == text.count("59m 59s") == 5
    if width in (40, None) or width < 60:
        assert "…" not in text
    seen = "".join(text.split())
    for method in (*METHODS, LONG):
        for part in method.replace(":", ":\n").replace(",", ",\n").split("\n"):
            assert part in seen, part


def test_methods_that_begin_alike_are_distinguished_at_80_columns() -> None:
    lines = [line.rstrip() for line in drawn(rows(), 80).splitlines()]
    assert lines == [
        "method                           seed  state    stage  now                  left",
        "moextend:scope=auto                 0  running    2/3  learning tiny-c…  59m 59s",
        "moextend:scope=all                  0  running    2/3  learning tiny-c…  59m 59s",
        "moextend:scope=all,routing=slot     0  running    2/3  learning tiny-c…  59m 59s",
        "lora                                0  running    2/3  learning tiny-c…  59m 59s",
    ]


def test_at_40_columns_the_state_and_the_time_left_stay_and_names_are_wrapped() -> None:
    lines = [line.rstrip() for line in drawn(rows(METHODS[:3], seeds=("0", "1")), 40).splitlines()]
    assert lines == [
        "method                  state       left",
        "moextend:scope=auto s0  running  59m 59s",
        "moextend:scope=auto s1  running  59m 59s",
        "moextend:scope=all s0   running  59m 59s",
        "moextend:scope=all s1   running  59m 59s",
        "moextend:scope=all,     running  59m 59s",
        "routing=slot s0",
        "moextend:scope=all,     running  59m 59s",
        "routing=slot s1",
    ]


def test_at_120_columns_everything_is_shown() -> None:
    lines = drawn(rows(), 120).splitlines()
    assert "learning tiny-counting 120/400" in lines[1] and "━" in lines[1]


def test_columns_go_in_their_order() -> None:
    seen = [layout(rows(), width).columns for width in range(120, 20, -1)]
    going = tuple(name for name in GOING if name != "where")
    gone = [tuple(name for name in going if name not in columns) for columns in seen]
    assert list(dict.fromkeys(gone)) == [going[:i] for i in range(5)]


def test_hosts_are_shown_where_there_is_room() -> None:
    placed = [replace(row, where="node-017 (41234)") for row in rows()]
    seen = [layout(placed, width).columns for width in range(160, 20, -1)]
    gone = [tuple(name for name in GOING if name not in columns) for columns in seen]
    assert list(dict.fromkeys(gone)) == [GOING[:i] for i in range(6)]
    assert drawn(placed, None).count("node-017 (41234)") == len(placed) and "where" not in drawn(rows(), None)


def test_a_lost_run_names_its_host_and_how_long_it_is_silent(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    status = Status(state="lost", host="nodeA", pid=12, heartbeat=815.0)
    row = row_of(make_run(), status, where=True)
    assert (row.state, row.where, row.now) == ("lost", "nodeA (12)", "no heartbeat for 3m 05s")
    assert row_of(make_run(), status.model_copy(update={"state": "done"}), where=True).where == ""


def test_a_file_has_room_for_everything_but_the_bar() -> None:
    text = drawn(rows((LONG,)), None)
    assert LONG in text and "learning tiny-counting 120/400" in text and "━" not in text


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch, make_run: MakeRun) -> Callable[..., list[Path]]:
    """Runs that work, or wait, without a worker."""

    def make(methods: Sequence[str], state: State = "running") -> list[Path]:
        runs = [make_run(method).folder for method in methods]
        at: dict[str, Any] = {
            "phase": "train",
            "stage": 1,
            "stages": 2,
            "task": "colour",
            "step": 5,
            "steps": 9,
        }
        status = Status(state=state, left=3600.0, **at)
        monkeypatch.setattr(live, "read_status", lambda folder: status)
        return runs

    return make


@pytest.mark.parametrize(("width", "height"), [(80, 10), (40, 12), (120, 24)])
def test_the_time_left_of_all_runs_is_on_a_low_terminal_too(
    working: Callable[..., list[Path]], width: int | None, height: int
) -> None:
    runs = working([f"lora:rank={rank}" for rank in range(1, 31)])
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    with LiveView(runs, 1, console) as view:
        view.update()
    last = out.getvalue().rsplit("method", 1)[-1]
    assert "30 running" in last and "about 30h 00m left" in " ".join(last.split()) and "not shown)" in last
    assert "..." not in last and len(last.removesuffix("\x1b[?25h").splitlines()) <= height
