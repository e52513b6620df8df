"""One run on several processes: the results of one process, also after an interruption, and no process that hangs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from tests.bench.run.together_workspace import make
from tests.together import FSDP, Together, start

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent / "work_together.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("together") / "w")


def prepared(place: Path, runs: str, method: str = "moextend:scope=auto") -> RunDir:
    (config,) = resolve(Request(workspace=place, sequence="small", methods=(method,)))
    for kind in ("predictions", "stages"):  # each run computes its own
        shutil.rmtree(place / ".cache" / kind, ignore_errors=True)
    return open_run(config, place / runs)


def work(server: str, run: RunDir, count: int = 2, **more: Any) -> Together:
    return start(
        server,
        run.folder.parents[1] / f"{run.folder.name}.output",
        SCRIPT,
        str(run.folder),
        count=count,
        **more,
    )


def finish(server: str, run: RunDir, count: int = 2, **more: Any) -> None:
    started = work(server, run, count, **more)
    assert started.codes() == [0] * count, started.output.read_text()[-3000:]


@pytest.fixture(scope="module")
def one(place: Path, fork_server: str) -> RunDir:
    """The run of a single process."""
    run = prepared(place, "one")
    finish(fork_server, run, 1)
    return run


def predictions(run: RunDir, stages: tuple[int, ...] = (0, 1, 2)) -> dict[tuple[int, str], bytes]:
    """Cell -> its file of predictions."""
    return {
        key: (run.folder / str(cell.predictions)).read_bytes()
        for key, cell in run.cells().items()
        if key[0] in stages
    }


def answers(run: RunDir) -> dict[tuple[int, str], list[Any]]:
    """Cell -> its answers, without numbers that depend on rounding."""
    found = {}
    for key, data in predictions(run).items():
        lines = [json.loads(line) for line in data.splitlines()]
        found[key] = [(line["id"], line["prediction"]) for line in lines if "summary" not in line]
    return found


def header(path: Path) -> Any:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


@pytest.fixture
def aligned_again(place: Path, one: RunDir) -> Iterator[None]:
    """Has the next run align its projector, which the runs of the workspace share."""
    aligned, aside = place / ".cache/aligned", place / ".cache/aside"
    aligned.rename(aside)
    yield
    shutil.rmtree(aligned)
    aside.rename(aligned)


@pytest.mark.usefixtures("aligned_again")
@pytest.mark.parametrize(
    "environment",
    [pytest.param({}, id="ddp"), pytest.param(FSDP, id="fsdp2", marks=pytest.mark.long)],
)
def test_two_processes_do_the_run_of_one(
    place: Path, one: RunDir, fork_server: str, environment: dict[str, str]
) -> None:
    run = prepared(place, "fsdp" if environment else "ddp")
    finish(fork_server, run, environment={"ACCELERATE_MIXED_PRECISION": "no", **environment})
    assert read_status(run.folder).state == "done"
    assert answers(run) == answers(one)
    lines = [
        [json.loads(line) for line in (each.folder / "scores.jsonl").read_text().splitlines()]
        for each in (run, one)
    ]
    cells = [[(line["stage"], line["task"], line["value"]) for line in each] for each in lines]
    assert cells[0] == cells[1], "each cell once, in the same order"
    for stage, cost in one.costs().items():
        assert run.costs()[stage].notes["loss"] == pytest.approx(cost.notes["loss"], rel=1e-5)
        assert run.costs()[stage].tokens == cost.tokens
    for path in sorted(one.folder.glob("stages/*/*.safetensors")):
        mine = run.folder / path.relative_to(one.folder)
        assert header(mine) == header(path), "the same names, types, shapes and offsets"
        wanted, found = load_file(path), load_file(mine)
        for name in wanted:
            apart = (found[name].float() - wanted[name].float()).abs()
            # AdamW makes steps of the learning rate (3e-3) where a gradient is zero up to rounding.
            assert bool((apart < 3e-3).all()) and int((apart > 5e-5).sum()) <= apart.numel() / 1000, name
    files = [{path.relative_to(each.folder) for path in each.folder.glob("*")} for each in (one, run)]
    assert files[0] == files[1]
    recorded = run.environments[-1]["processes"]
    kind = "FSDP" if environment else "DDP"
    assert recorded == {"distributed_type": kind, "num_processes": 2, "backend": "gloo"}
    assert "processes" not in one.environments[-1]


def scored_again(one: RunDir, runs: str) -> RunDir:
    """A copy of the run with its stages and without scores."""
    folder = one.folder.parents[2] / runs / one.folder.parent.name / one.folder.name
    shutil.copytree(
        one.folder, folder, ignore=shutil.ignore_patterns("predictions", "scores.jsonl", "status.json")
    )
    shutil.rmtree(one.folder.parents[2] / ".cache/predictions", ignore_errors=True)
    return RunDir(folder)


def test_the_answers_of_two_processes_are_byte_equal(one: RunDir, fork_server: str) -> None:
    run = scored_again(one, "answers")
    finish(fork_server, run)
    assert predictions(run) == predictions(one) and len(predictions(one)) == 12
    assert b'"likelihoods": [' in predictions(one)[0, "shade"]
    assert not list(run.folder.rglob("*.part-*"))


def test_all_processes_end_after_an_error_of_one(place: Path, fork_server: str) -> None:
    run = prepared(place, "failing", "lora")
    started = work(fork_server, run, only={1: {"FAIL": "1"}})
    assert started.codes(timeout=100) == [1, 1]
    assert "error: the plug: no current. Plug it in." in started.output.read_text()
    status = read_status(run.folder)
    assert status.state == "failed" and status.error and "another process of the run" in str(status.error)


@pytest.mark.long  # 8 s
def test_a_signal_to_all_processes_stops_them_in_order(place: Path, one: RunDir, fork_server: str) -> None:
    run = prepared(place, "stopped")
    started = work(fork_server, run)
    end = time.monotonic() + 100
    while read_status(run.folder).phase != "train" and time.monotonic() < end:
        time.sleep(0.02)
    for pid in started.pids:
        os.kill(pid, signal.SIGTERM)
    assert started.codes(timeout=60) == [75, 75], started.output.read_text()[-2000:]
    assert read_status(run.folder).state == "interrupted"
    finish(fork_server, run)
    assert answers(run) == answers(one) and predictions(run, (0,)) == predictions(one, (0,))


@pytest.mark.long
@pytest.mark.parametrize(("rank", "at"), [(0, 38), (1, 17), (1, 75)])
def test_a_kill_at_any_moment_loses_nothing(
    place: Path, one: RunDir, fork_server: str, rank: int, at: int
) -> None:
    run = prepared(place, f"kill-{rank}-{at}")
    started = work(fork_server, run, only={rank: {"KILL_AT": str(at)}})
    codes = started.codes(timeout=120)
    assert codes == [0, 0] or codes[rank] == -signal.SIGKILL
    finish(fork_server, run, 1 + at % 2)
    assert answers(run) == answers(one) and predictions(run, (0,)) == predictions(one, (0,))
    lines = [json.loads(line) for line in (run.folder / "scores.jsonl").read_text().splitlines()]
    assert len({(line["stage"], line["task"]) for line in lines}) == len(lines) == 12


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate-ddp", "accelerate-fsdp"])
def test_real_launchers(place: Path, one: RunDir, tmp_path: Path, launcher: str) -> None:
    run = prepared(place, launcher)
    worker = ["-m", "moextend.bench.run.worker", str(run.folder)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if launcher == "torchrun":
        command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, *worker]
    else:
        kind = "FSDP" if launcher.endswith("fsdp") else "MULTI_GPU"
        config = {
            "compute_environment": "LOCAL_MACHINE", "distributed_type": kind, "num_machines": 1, "num_processes": 2,
            "mixed_precision": "no", "main_process_port": int(port), "machine_rank": 0,
        }  # fmt: skip
        if kind == "FSDP":
            config["fsdp_config"] = {
                "fsdp_version": 2, "fsdp_reshard_after_forward": True, "fsdp_cpu_ram_efficient_loading": False
            }  # fmt: skip
        (tmp_path / "launch.yaml").write_text(json.dumps(config))
        command = [
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(tmp_path / "launch.yaml"),
            *worker,
        ]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, **path},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert answers(run) == answers(one) and predictions(run, (0,)) == predictions(one, (0,))
    recorded = run.environments[-1]["processes"]
    assert recorded["distributed_type"] == ("FSDP" if launcher.endswith("fsdp") else "DDP")
