"""Runs on a real Ray cluster of one node: what ends them, and what is submitted again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moextend.bench.executors import ray_executor
from moextend.bench.executors.executor import Job, JobState, Options, Resources, find, now, read_job
from moextend.bench.executors.ray_executor import RayExecutor
from moextend.bench.run import launch as launching
from moextend.bench.run.progress import mark_failed, read_status
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError, RunFailed
from moextend.util.lease import life
from tests.bench.conftest import MakeRun
from tests.bench.executors.one_machine_ray import start_ray
from tests.bench.run.local import launch
from tests.bench.run.test_launch import FAKE

ray = pytest.importorskip("ray")
FAILING = ("full-ft", "crash", "killed")


@pytest.fixture(autouse=True)
def one_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "RETRIES", 1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One node with two CPUs, shared by the tests; executors join it and leave it running."""
    folder = tempfile.mkdtemp(prefix="ray")  # a short name: sockets have paths of at most 107 characters
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        start_ray(folder)
        yield
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def wait(
    executor: RayExecutor, jobs: list[Job], when: Callable[[], None] = lambda: None, seconds: float = 120
) -> dict[Path, JobState]:
    """States of the jobs after all have ended; `when` is called again and again."""
    end = time.monotonic() + seconds
    while set((states := dict(executor.states(jobs))).values()) != {"ended"}:
        assert time.monotonic() < end, states
        when()
        time.sleep(0.1)
    return states


def values(run: RunDir) -> list[tuple[int, str, float]]:
    return [(stage, task, cell.value) for (stage, task), cell in run.cells().items()]


def once(folder: Path, name: str) -> str:
    """Shell line that has the first worker of all sleep, and the later ones work."""
    return f"if mkdir {folder / name} 2>/dev/null; then export FAKE=slow; else export FAKE=lora; fi"


def test_runs_end_as_with_the_local_executor(
    cluster: None, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of a run are not repeated, a killed worker is, a bounded number of times."""
    monkeypatch.setattr(launching, "WORKER", tuple(FAKE))
    here = {name: make_run(name, 1) for name in ("lora", "moextend", *FAILING)}
    launch([run.folder for run in here.values()], jobs=2)
    there = {name: make_run(name, 2, sequence=run.config.sequence) for name, run in here.items()}
    executor = RayExecutor(FAKE)
    jobs = executor.submit([run.folder for run in there.values()], Options())
    assert [job.run for job in jobs] == [run.folder for run in there.values()]
    wait(executor, jobs)
    assert ray.is_initialized()  # the cluster is of somebody else
    for name, run in there.items():
        wanted, found = read_status(here[name].folder), read_status(run.folder)
        assert (found.state, found.stage) == (wanted.state, wanted.stage), name
        assert values(run) == [
            (stage, task, value + (task != "facts")) for stage, task, value in values(here[name])
        ]
        assert (job := read_job(run.folder)) and job.executor == "ray" and len(job.id) > 20
    errors = {name: read_status(there[name].folder).error for name in FAILING}
    why = {name: error.what or "" for name, error in errors.items() if error}
    assert why["full-ft"] == "the loss is not finite."
    assert "ended with code 3 (cannot open the weights)" in why["crash"]
    assert "lost 2 times" in why["killed"] and "SIGKILL" in why["killed"]


def test_a_killed_process_of_ray_ends_its_worker_and_the_run_goes_on(
    cluster: None, make_run: MakeRun, tmp_path: Path
) -> None:
    run, executor = make_run("lora"), RayExecutor(FAKE)
    killed: list[int] = []

    def kill() -> None:
        status = read_status(run.folder)
        if status.phase == "train" and not killed:
            run.record_environment()  # as a real worker does: its config.json is another one than at the submission
            parent = int(Path(f"/proc/{status.pid}/stat").read_text().rpartition(")")[2].split()[1])
            assert "ray::" in Path(f"/proc/{parent}/cmdline").read_text()
            os.kill(parent, signal.SIGKILL)
            killed.append(status.pid or 0)

    jobs = executor.submit([run.folder], Options(setup=(once(tmp_path, "slept"),)))
    wait(executor, jobs, kill)
    assert killed and life(killed[0]) == "dead"  # gone, or a zombie that nobody has asked for yet
    assert read_status(run.folder).state == "done" and len(values(run)) == 9
    assert (
        "another process" not in run.log.read_text()
    )  # the second worker came when the first had saved its state


def test_cancel_stops_a_worker_in_order_and_forgets_what_waits(cluster: None, make_run: MakeRun) -> None:
    running, waiting, executor = make_run("slow"), make_run("lora"), RayExecutor(FAKE)
    cancelled: list[bool] = []

    def cancel() -> None:
        if read_status(running.folder).phase == "train" and not cancelled:
            cancelled.append(True)
            assert dict(executor.states(jobs)) == {running.folder: "running", waiting.folder: "queued"}
            executor.cancel(jobs)

    jobs = executor.submit([running.folder, waiting.folder], Options(jobs=1))
    wait(executor, jobs, cancel)
    assert read_status(running.folder).state == "interrupted" and len(running.cells()) == 3
    assert read_status(waiting.folder).state == "waiting"
    jobs = executor.submit([running.folder], Options(setup=("export FAKE=lora",)))
    wait(executor, jobs)
    assert read_status(running.folder).state == "done"


def test_options_are_checked_before_anything_is_submitted(cluster: None, make_run: MakeRun) -> None:
    run = make_run("lora")
    for options, words in (
        (Options(passed={"retrys": "2"}), "no option of executor ray 'retrys'"),
        (Options(address="ray://10.0.0.1:10001"), "is an address of Ray Client"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            RayExecutor(FAKE).submit([run.folder], options)
    assert read_job(run.folder) is None
    for wanted in (Resources(cpus=3), Resources(gpus=1), Resources(memory_gb=1e6)):
        with pytest.raises(InputError, match=r"a run needs .*, and this machine has"):
            ray_executor.needs_of(wanted, grows=False)
    assert ray_executor.needs_of(Resources(cpus=3), grows=True) == {"CPU": 3.0, "GPU": 0.0}


def test_an_address_without_a_cluster_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself tries for a quarter of an hour, and fills the terminal."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *given, **more: pytest.fail("must not be asked"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for wrong in (address, "no-such-host.invalid:6379", "127.0.0.1:99999"):
            with pytest.raises(InputError, match="cannot be joined"):
                ray_executor.connect(wrong)


def test_another_process_knows_what_the_folders_say(make_run: MakeRun) -> None:
    """The runs end with the process that submitted them: without it, none of them waits."""
    executor, mine = RayExecutor(), f"{os.getpid()}@{socket.gethostname()}"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    waiting, ended = make_run("lora").folder, make_run("full-ft").folder
    mark_failed(ended, RunFailed("it is over."))
    for id, run, state in (
        (f"{mine}/abc", waiting, "queued"),
        (f"{gone.pid}@{socket.gethostname()}", waiting, "lost"),
        ("12@elsewhere/abc", waiting, "unknown"),
        ("strange", waiting, "unknown"),
        ("12@elsewhere/abc", ended, "ended"),
    ):
        assert executor.states([Job(run=run, executor="ray", id=id, submitted=now())]) == {run: state}, id


def test_without_ray_the_way_to_install_it_is_named(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=re.escape("pip install 'moextend[ray]'")):
        find("ray", None).submit([make_run("lora").folder], Options())
