"""`moextend-worker RUN_FOLDER`: a run folder in, the same folder with its results out."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from moextend.bench.run import worker
from moextend.bench.run.progress import CANCEL, EXECUTOR, cancel, read_status
from moextend.bench.run.rundir import RunDir
from tests.bench.conftest import MakeRun
from tests.bench.executors.one_machine_slurm import until
from tests.bench.run.test_launch import FAKE


def start(run: RunDir, **environment: str) -> subprocess.Popen[str]:
    command = [*FAKE, str(run.folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def trains(run: RunDir) -> None:
    """Waits until the run trains."""
    until(lambda: read_status(run.folder).phase == "train", "training", 60)


def test_a_failed_run_ends_with_code_1_and_its_error(make_run: MakeRun) -> None:
    run = make_run("full-ft")
    process = start(run)
    assert "error: stage 2: the loss is not finite" in process.communicate()[1] and process.returncode == 1
    assert read_status(run.folder).state == "failed"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGUSR1, 75), (signal.SIGINT, 130)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_signal_stops_it_in_order_and_the_same_command_goes_on(
    make_run: MakeRun, number: signal.Signals, code: int
) -> None:
    run = make_run("slow")
    process = start(run)
    trains(run)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    assert read_status(run.folder).state == "interrupted" and len(run.cells()) == 3
    assert start(run, FAKE="lora").wait() == 0 and len(run.cells()) == 9


@pytest.mark.parametrize("arguments", [["a", "b"], [""], ["--help"], ["no-such-folder"], ["."]])
def test_what_is_no_run_folder_is_refused_with_code_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    assert worker.work(arguments, lambda folder: pytest.fail("must not run")) == 2
    assert capsys.readouterr().err.startswith(("usage: moextend-worker RUN_FOLDER", "error: "))


def test_a_request_to_cancel_stops_it_in_order_and_the_run_goes_on_later(make_run: MakeRun) -> None:
    run = make_run("slow")
    process = start(run)
    trains(run)
    cancel(run.folder)
    assert process.wait(timeout=30) == 75
    assert read_status(run.folder).state == "interrupted" and len(run.cells()) == 3
    assert start(run, FAKE="lora", **{EXECUTOR: "slurm"}).wait() == 75, "it was queued before the request"
    assert len(run.cells()) == 3
    assert start(run, FAKE="lora").wait() == 0 and len(run.cells()) == 9, "by hand it starts nevertheless"
    assert not (run.folder / CANCEL).exists()
