"""Runs in worker processes: a dead worker loses only the current step of one run."""

import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moextend.bench.run import launch as launching
from moextend.bench.run.live import LiveView, PlainView, seconds_left
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import RunError, State, Status
from tests.bench.conftest import MakeRun
from tests.bench.run.local import launch
from tests.bench.states import hold
from tests.preloaded import client_command

SCRIPT = str(Path(__file__).with_name("fake_worker.py"))
FAKE = [sys.executable, SCRIPT]


@pytest.fixture(autouse=True)
def quick(fork_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "WORKER", client_command(fork_server, SCRIPT))
    monkeypatch.setattr(launching, "TICK", 0.02)
    monkeypatch.setattr(launching, "GRACE", 1.0)


def test_a_failed_run_does_not_stop_the_others(make_run: MakeRun) -> None:
    bad, good = make_run("full-ft"), make_run("lora")
    outcomes = launch([bad.folder, good.folder])
    assert outcomes[good.folder].state == "done"
    assert outcomes[bad.folder].state == "failed"
    assert outcomes[bad.folder].error == "stage 2: the loss is not finite. Lower the learning rate."
    assert len(bad.cells()) == 6  # rows 0 and 1 are kept


def test_a_killed_worker_costs_one_run_and_names_the_log(make_run: MakeRun) -> None:
    killed, good = make_run("killed"), make_run("lora")
    outcomes = launch([killed.folder, good.folder])
    assert outcomes[good.folder].state == "done"
    error = outcomes[killed.folder].error
    assert error and "was killed by SIGKILL; the system may have run out of memory" in error
    assert f"{killed.log}: " in error
    status = read_status(killed.folder)
    assert (status.state, status.stage) == ("failed", 2)
    assert len(killed.cells()) == 6


def test_the_same_call_goes_on_where_a_killed_run_stopped(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = make_run("killed")
    launch([killed.folder])
    first = (killed.folder / "scores.jsonl").read_text()
    monkeypatch.setenv("FAKE", "well")
    assert launch([killed.folder])[killed.folder].state == "done"
    text = (killed.folder / "scores.jsonl").read_text()
    assert text.startswith(first)
    assert len(text.splitlines()) == 9


def test_a_crash_reports_the_last_line_and_keeps_the_log(make_run: MakeRun) -> None:
    run = make_run("crash")
    error = launch([run.folder])[run.folder].error
    assert error and "ended with code 3 (cannot open the weights)" in error
    assert sorted(run.log.read_text().splitlines()) == [
        "Loading: 0%|  | 0/9",
        "Loading: 11%|# | 1/9",
        "cannot open the weights",
        "some library printed this",
    ]


@pytest.mark.parametrize("method", ["slow", "deaf"])
def test_ctrl_c_stops_the_workers_and_passes_through(
    make_run: MakeRun, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "WORKER", FAKE)
    run, waiting = make_run(method), make_run("lora")

    class Interrupting:
        def update(self) -> None:
            if read_status(run.folder).phase == "train" and not self.sent:
                self.sent = True
                os.kill(os.getpid(), signal.SIGINT)

        sent = False

    began, threads = time.monotonic(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        launch([run.folder, waiting.folder], view=Interrupting())
    assert time.monotonic() - began < 45
    assert read_status(run.folder).state == "interrupted"
    assert read_status(waiting.folder).state == "waiting"
    assert len(run.cells()) == 3
    assert threading.active_count() < threads + 4


def show(view_class: Callable[..., Any], runs: Sequence[Path], **console: Any) -> str:
    out = io.StringIO()
    with view_class(runs, 1, Console(file=out, width=100, **console)) as view:
        launch(runs, view=view)
    return out.getvalue()


def test_the_live_table_names_every_run(make_run: MakeRun) -> None:
    runs = [make_run("lora").folder, make_run("moextend:scope=all", order="reverse").folder]
    text = show(LiveView, runs, force_terminal=True)
    for word in ("lora", "moextend:scope=all reverse", "done", "2/2", "2 done; "):
        assert word in text


def test_time_left_over_all_runs() -> None:
    running = Status(state="running", elapsed=50, left=50)
    assert seconds_left([running], 1) == 50
    assert seconds_left([running, Status()], 1) == 150
    assert seconds_left([running, running, Status(), Status()], 2) == 150
    assert seconds_left([Status(state="running", elapsed=5)], 1) is None
    assert seconds_left([Status()], 1) is None
    assert seconds_left([Status(state="done", elapsed=9, left=0)], 1) == 0


def test_plain_lines_tell_beginnings_stages_and_ends(make_run: MakeRun) -> None:
    runs = [make_run("lora").folder, make_run("full-ft").folder]
    lines = [line for line in show(PlainView, runs).splitlines() if " so far, about " not in line]
    assert any(line.startswith("lora-s0: done in ") for line in lines)
    assert "full-ft-s0: failed: the loss is not finite." in lines and "full-ft-s0: started" in lines
    out = io.StringIO()
    view = PlainView(runs[:1], 1, Console(file=out))
    steps: list[tuple[int, State]] = [(0, "running"), (1, "running"), (1, "running"), (2, "failed")]
    for stage, state in steps:
        error = RunError(what="x", where=None, hint=None)
        Status(state=state, pid=1, stage=stage, stages=2, error=error).write(runs[0] / "status.json")
        hold(runs[0], host=socket.gethostname(), pid=os.getpid(), duration=3600.0)
        view.update()
    assert out.getvalue().splitlines() == [
        "lora-s0: started", "lora-s0: stage 1/2 begins", "lora-s0: failed: x",
    ]  # fmt: skip
