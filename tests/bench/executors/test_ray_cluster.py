"""A grid of real runs on a real Ray cluster of several nodes, with a worker, a process of Ray and a node killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir, find_runs
from tests.bench.executors.one_machine_ray import STORE, patiently

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
SEQUENCE = """
sequence: mini
version: 1
base: {model: tiny, vision: tiny}
align: {task: tiny-captions, steps: 20, batch_size: 8, learning_rate: 3.0e-3}
stages: [{task: tiny-attributes}, {task: tiny-counting}]
retention: [tiny-agreement]
train: {steps: 5, batch_size: 16, learning_rate: 3.0e-3}
scoring: {batch_size: 32}
"""
GRID = ("bench", "run", "mini", "--method", "lora,full-ft", "--seed", "0,1,2,3", "--limit", "10")
RUNS = 8


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of a head without CPUs and two nodes of two CPUs each."""
    from ray.cluster_utils import Cluster

    folder = Path(
        tempfile.mkdtemp(prefix="ray")
    )  # a short name: sockets have paths of at most 107 characters
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", str(folder))
        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        found = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        for _ in range(2):
            patiently(lambda: found.add_node(num_cpus=2, object_store_memory=STORE))
        yield found
        found.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def command(workspace: Path, *more: str) -> list[str]:
    (workspace / "registry").mkdir(parents=True, exist_ok=True)
    (workspace / "registry" / "mini.yaml").write_text(SEQUENCE)
    arguments = [*GRID, "--json", "--workspace", str(workspace), *more]
    return [sys.executable, "-P", "-m", "moextend", *arguments]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Killer:
    """Kills, each once and in this order: a worker, the process of Ray that waits for another one, and a node."""

    def __init__(self, cluster: Any, runs: Path) -> None:
        self.cluster, self.runs = cluster, runs
        self.hit: dict[str, Path] = {}

    def __call__(self) -> None:
        for run in self.runs.glob("mini/*"):
            status = read_status(run)
            at_work = status.state == "running" and status.phase in ("train", "score")
            if at_work and status.pid and run not in self.hit.values() and len(self.hit) < 3:
                self.kill(run, status.pid)

    def kill(self, run: Path, pid: int) -> None:
        waits = parent(pid)
        if not self.hit:
            self.hit["worker"] = run
            os.kill(pid, signal.SIGKILL)
        elif len(self.hit) == 1:
            self.hit["process"] = run
            os.kill(waits, signal.SIGKILL)
        else:
            node = self.node(parent(waits))
            self.cluster.remove_node(node, allow_graceful=False)
            self.hit["node"] = run

    def node(self, raylet: int) -> Any:
        nodes = {node.all_processes["raylet"][0].process.pid: node for node in self.cluster.worker_nodes}
        return nodes[raylet]


def content(run: RunDir) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Cells and predictions, without times, and without who came first to the cells that runs share."""
    cells = [cell.model_dump(exclude={"seconds", "reused"}) for cell in run.cells().values()]
    files = [path for path in (run.folder / "predictions").rglob("*") if path.is_file()]
    return cells, {str(path.relative_to(run.folder)): path.read_bytes() for path in files}


def test_a_grid_with_killed_workers_and_a_lost_node_ends_as_on_this_machine(
    cluster: Any, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    local = subprocess.run(command(here, "--jobs", "2"), capture_output=True, text=True, check=True)
    on_cluster = ("--executor", "ray", "--executor-option", f"address={cluster.address}")
    process = subprocess.Popen(
        command(there, *on_cluster), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    kill = Killer(cluster, there / "runs")
    while process.poll() is None:
        kill()
        time.sleep(0.1)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert set(kill.hit) == {"worker", "process", "node"}
    records = json.loads(out)  # Ray has written nothing among them
    assert [record["state"] for record in records] == ["done"] * RUNS
    wanted = {record["run"]: record["metrics"] for record in json.loads(local.stdout)}
    assert {record["run"]: record["metrics"] for record in records} == wanted
    runs = find_runs(there / "runs")
    assert len(runs) == RUNS
    for run in runs:
        cells, predictions = content(run)
        same, known = content(RunDir(here / "runs" / "mini" / run.folder.name))
        assert cells and predictions and cells == same and predictions == known, run.folder.name
