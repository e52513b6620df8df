"""The table of runs fits the terminal: state, method and time left are never cut."""

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from moextend.bench.run.live import Row, row_of, table
from moextend.bench.run.records import Status
from tests.bench.conftest import MakeRun

METHODS = ("moextend:scope=auto", "moextend:scope=all,routing=slot,layers=all,memory=generic", "lora")


def rows(seeds: Sequence[str] = ("0",)) -> list[Row]:
    return [
        Row(
            method,
            seed,
            "running",
            "2/3",
            "learning tiny-counting 120/400",
            "59m 59s",
            0.4,
            where="node-7 (41)",
        )
        for method in METHODS
        for seed in seeds
    ]


def drawn(found: Sequence[Row], width: int | None) -> str:
    out = io.StringIO()
    Console(file=out, width=width or 10_000, color_system=None).print(table(found, width))
    return out.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120, 160, None])
def test_state_method_and_time_left_are_whole(width: int | None) -> None:
    text = drawn(rows(("0", "1")), width)
    assert width is None or max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert text.count("running") == text.count("59m 59s") == text.count("moextend:scope=auto") * 3 == 6
    assert text.count("node-7 (41)") == (6 if width is None or width >= 100 else 0)
    assert ("learning tiny-counting 120/400" in text) or width not in (160, None)
    assert "where" not in drawn([replace(row, where="") for row in rows()], width)


def test_a_lost_run_names_its_host_and_how_long_it_is_silent(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    status = Status(state="lost", host="nodeA", pid=12, heartbeat=815.0)
    row = row_of(make_run(), status, where=True)
    assert (row.state, row.where, row.now) == ("lost", "nodeA (12)", "no heartbeat for 3m 05s")
    assert row_of(make_run(), status.model_copy(update={"state": "done"}), where=True).where == ""
