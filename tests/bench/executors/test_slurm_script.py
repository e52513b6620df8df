"""The script of an array: its text for several sets of options, and what it does."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from moextend.bench.executors.executor import Options, Resources
from moextend.bench.executors.slurm_script import Settings, render
from moextend.bench.run.progress import cancel
from moextend.errors import InputError
from tests.bench.executors.conftest import calls
from tests.bench.executors.one_machine_slurm import until

GOLDEN = Path(__file__).parents[2] / "fixtures" / "slurm"
SETS = {
    "plain": Options(passed={"python": "python"}),
    "cluster": Options(
        jobs=8,
        resources=Resources(cpus=8, gpus=1, memory_gb=64.0),
        setup=("module load cuda/12", "source ~/venv/bin/activate"),
        passed={
            "python": "python", "account": "me", "partition": "gpu", "constraint": "a100&ib", "qos": "long",
            "time": "1-00:00:00", "exclusive": "", "mail-user": "me@example.org", "comment": 'it\'s a "test" \\ %',
        },
    ),
    "apptainer": Options(
        passed={"python": "python3", "wrap": "apptainer exec --nv 'my image.sif'", "time": "10"}
    ),
    "pyxis": Options(
        resources=Resources(gpus=2),
        passed={
            "python": "python", "container-image": "nvcr.io#nvidia/pytorch:25.01-py3",
            "container-mounts": "/data:/data", "gpus-per-task": "2", "signal": "B:TERM@60",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_the_script_is_the_stored_one(name: str) -> None:
    text = render(
        Settings.of(SETS[name]),
        script=Path("/my runs/.slurm/1/array.sh"),
        listed=Path("/my runs/.slurm/1/runs.txt"),
        runs=30,
        name="moextend-tiny",
    )
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        ({"array": "1-3"}, "--jobs N"),
        ({"p": "gpu"}, "long options"),
        ({"--partition": "gpu"}, "long options"),
        ({"comment": "a\nb"}, "line break"),
        ({"signal": "USR1@30"}, "does not signal the script"),
        ({"wrap": ""}, "has no value"),
    ],
)
def test_a_wrong_option_is_named(passed: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Settings.of(Options(passed=passed))
    assert caught.value.where == f"--executor-option {next(iter(passed))}"


PYTHON = """#!/bin/bash
case "$4" in
moextend.bench.run.worker) shift 4; echo "$1" >"$FAKE/worked"; exec "$FAKE/worker" "$1" ;;
esac
"""


class Task:
    """The script of one run, as Slurm starts it for the second task of array 5, with a worker of the test."""

    def __init__(self, slurm: Path, folder: Path, worker: str, *, setup: tuple[str, ...] = ()) -> None:
        self.run = folder / """it's a "run" $HOME %a"""
        self.run.mkdir()
        for name, text in (("python", PYTHON), ("worker", f"#!/bin/bash\n{worker}\n")):
            (slurm / name).write_text(text)
            (slurm / name).chmod(0o755)
        script, listed = folder / "the array.sh", folder / "the runs.txt"
        listed.write_text(f"/nothing\n{self.run}\n")
        options = Options(passed={"python": shlex.quote(str(slurm / "python")) + " -x"}, setup=setup)
        script.write_text(render(Settings.of(options), script=script, listed=listed, runs=2, name="x"))
        environment = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "7"}
        self.script = script
        self.process = subprocess.Popen(["bash", str(script)], env={**os.environ, **environment})

    def code(self) -> int:
        return self.process.wait(timeout=30)


@pytest.mark.parametrize("code", [0, 2, 75, 130])
def test_a_task_ends_with_the_code_of_its_worker(slurm: Path, tmp_path: Path, code: int) -> None:
    task = Task(slurm, tmp_path, f"echo hello; exit {code}")
    assert task.code() == code and calls(slurm) == []
    assert (slurm / "worked").read_text() == f"{task.run}\n"
    assert (task.run / "worker.log").read_text() == "hello\n"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_signal_reaches_the_worker_and_that_of_the_limit_queues_the_job_again(
    slurm: Path, tmp_path: Path, number: signal.Signals, cancelled: bool
) -> None:
    worker = """trap 'sleep 0.5; echo saved >"$FAKE/saved"; exit 75' USR1
    touch "$FAKE/ready"; while :; do sleep 0.1; done"""
    task = Task(slurm, tmp_path, worker)
    until((slurm / "ready").exists, "the worker", 30)
    if cancelled:
        cancel(task.run)
    task.process.send_signal(number)
    time.sleep(0.2)
    task.process.send_signal(number)
    assert task.code() == 75 and (slurm / "saved").exists()
    assert calls(slurm) == ["scontrol requeue 5_2"] * (number == signal.SIGUSR1 and not cancelled)
