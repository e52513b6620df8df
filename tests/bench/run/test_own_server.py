"""A run whose tasks, with images and of text, are scored by `moextend serve`: the cells of the run in process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import moextend
from moextend.bench.exporting import stage
from moextend.bench.run import runner
from moextend.bench.run.complete import lacks
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir
from moextend.bench.store.node import OFF
from moextend.cli.opening import ExtendedBase

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.serving.living import living

pytestmark = pytest.mark.timeout(1200)  # two runs with a training each
METHOD = "moextend:scope=own"
SEQUENCE = """
sequence: small
version: 1
base: {model: tiny, vision: tiny}
align: {task: tiny-captions, steps: 2, batch_size: 4, learning_rate: 3.0e-3}
stages: [{task: tiny-counting}]
retention: [tiny-facts]
train: {steps: 3, batch_size: 4, learning_rate: 3.0e-3}
scoring: {batch_size: 10, limit: 12}
settings: {moextend: {probe_steps: 1}}
"""


@pytest.fixture
def workspace(tmp_path: Path, small_world: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(OFF, "off")  # each run trains its own stages
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "small.yaml").write_text(SEQUENCE)
    yield tmp_path


def ran(workspace: Path, runs: str, backend: dict[str, Any] | None = None) -> RunDir:
    (config,) = resolve(Request(workspace=workspace, sequence="small", methods=(METHOD,), backend=backend))
    run = open_run(config, workspace / runs)
    runner.run(run.folder)
    return run


def answers(run: RunDir) -> dict[Any, Any]:
    """(stage, task) -> what each item got, without numbers that a server rounds."""
    found = {}
    for key, cell in run.cells().items():
        lines = (run.folder / str(cell.predictions)).read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        found[key] = [(row.get("id"), row.get("prediction")) for row in rows]
    return found


@pytest.mark.slow  # two runs, each with a training
def test_images_are_scored_as_in_process(workspace: Path) -> None:
    plain = ran(workspace, "plain")
    opened = stage.opened(stage.find(f"small/{plain.folder.name}:1", workspace / "plain"), None)
    moextend.save_model(opened.model, workspace / "whole", base="tiny", encoders={"image": "tiny"})
    base = ExtendedBase(base=str(workspace / "whole"), device="cpu").open()
    with living(base) as server:
        served = ran(workspace, "served", {"backend": "openai", "server": f"{server.url}/v1", "parity": 4})
        names = [one["id"] for one in server.client().get("/v1/models").json()["data"]]
    assert names[:2] == ["base", "tiny-counting"], "the run attached its extension"
    mine, theirs = plain.cells(), served.cells()
    assert set(mine) == set(theirs) and not lacks(served)
    for key, cell in theirs.items():
        assert (cell.value, cell.stderr, cell.weights) == (
            mine[key].value,
            mine[key].stderr,
            mine[key].weights,
        )
        assert cell.backend == "openai" and cell.parity, key
    assert answers(served) == answers(plain)
    assert theirs[1, "tiny-counting"].weights != theirs[0, "tiny-counting"].weights
