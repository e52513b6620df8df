"""Commands at the same moment: shared results are computed once, and nobody's results depend on the others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.rundir import RunDir, find_runs
from moextend.bench.store import Store
from tests import preloaded

from . import workspace

PAIR = ("moextend:scope=own", "moextend:scope=auto")


class Commands:
    """`moextend bench run small` in workspaces, in forked processes."""

    def __init__(self, server: str, folder: Path) -> None:
        self.server, self.folder = server, folder

    def start(self, place: str, *arguments: str, **environment: str) -> Any:
        """Starts the command in a workspace, which is made if it is new."""
        folder = self.folder / place
        if not folder.exists():
            workspace.make(folder)
        order = preloaded.order("cli", "bench", "run", "small", *arguments, **environment)
        with (self.folder / f"{place}.output").open("ab") as output:
            client = preloaded.connect(
                self.server, {**order, "folder": str(folder)}, (0, output.fileno(), output.fileno())
            )
        preloaded.pid_of(client)
        return client

    def run(self, place: str, *arguments: str, **environment: str) -> list[RunDir]:
        """Runs the command to its end; its runs."""
        self.ends(place, self.start(place, *arguments, **environment))
        return find_runs(self.folder / place / "runs")

    def ends(self, place: str, *clients: Any) -> None:
        """Waits for commands, which must succeed."""
        for client in clients:
            assert preloaded.status_of(client) == 0, (self.folder / f"{place}.output").read_text()


@pytest.fixture
def commands(fork_server: str, tmp_path: Path) -> Commands:
    return Commands(fork_server, tmp_path)


def content(run: RunDir) -> dict[str, Any]:
    """Scores, and weights and predictions byte for byte."""
    found: dict[str, Any] = {
        f"{stage} {task}": cell.model_dump(exclude={"seconds", "reused"})
        for (stage, task), cell in run.cells().items()
    }
    paths = [*run.folder.glob("stages/*/*.safetensors"), *run.folder.glob("predictions/**/*.jsonl")]
    return found | {path.relative_to(run.folder).as_posix(): path.read_bytes() for path in sorted(paths)}


@pytest.mark.slow
def test_runs_that_start_together_compute_what_they_share_once(commands: Commands) -> None:
    clients = [commands.start("together", "-m", method) for method in PAIR]
    commands.ends("together", *clients)
    runs = find_runs(commands.folder / "together" / "runs")
    assert len(runs) == 2
    tasks = runs[0].config.stages + runs[0].config.retention
    for task in tasks:
        reused = [run.cells()[0, task].reused for run in runs]
        assert sorted(reused) == [False, True], f"{task}: the base answers once"
    for stage in (1, 2):
        by = [run.costs()[stage].trained_by for run in runs]
        assert sum(name is None for name in by) == 1, f"stage {stage} is trained once: {by}"
    aligned = [run.costs()[1].alignments["image"].seconds for run in runs]
    assert aligned[0] is not None and aligned[0] == aligned[1], "one alignment"
    store = Store(commands.folder / "together" / ".cache")
    found = Counter(path.parent.name for path in store.folder.glob("*/*/"))
    assert found["aligned"] == 1 and found["stages"] == 2
    (features,) = store.folder.glob("features/*/names.txt")
    names = features.read_text().split("\n")[:-1]
    media = [name.split()[0] for name in names]
    assert media and len(media) == len(set(media)), "every image is encoded once"
    (alone,) = commands.run("alone", "-m", runs[0].config.method, MOEXTEND_SHARING="off")
    assert content(runs[0]) == content(alone)
