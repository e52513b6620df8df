"""A request to cancel reaches the worker through the folder of its run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from moextend.bench.run import progress
from moextend.bench.run.progress import CANCEL, EXECUTOR, cancel, heeding, read_status
from tests.bench.conftest import MakeRun
from tests.bench.run.test_worker_alone import start


def test_a_running_worker_stops_in_order_and_the_run_goes_on_later(make_run: MakeRun) -> None:
    run = make_run("slow")
    process = start(run)
    end = time.monotonic() + 60
    while read_status(run.folder).phase != "train" and time.monotonic() < end:
        time.sleep(0.05)
    cancel(run.folder)
    assert process.wait(timeout=30) == 75
    assert read_status(run.folder).state == "interrupted" and len(run.cells()) == 3
    assert start(run, FAKE="lora", **{EXECUTOR: "slurm"}).wait() == 75, "it was queued before the request"
    assert len(run.cells()) == 3
    assert start(run, FAKE="lora").wait() == 0 and len(run.cells()) == 9, "by hand it starts nevertheless"
    assert not (run.folder / CANCEL).exists()


def test_a_request_stops_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_EVERY", 0.02)
    stops: list[int] = []
    with heeding(tmp_path, lambda: stops.append(1)):
        time.sleep(0.1)
        assert not stops
        cancel(tmp_path)
        time.sleep(0.3)
    assert stops == [1]
