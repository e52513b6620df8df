"""A small run config, and folders for runs of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import ordered
from moextend.bench.run.rundir import RunConfig, RunDir
from tests.bench.cells import cell_of

TASKS = ("colour", "count")

MakeConfig = Callable[..., RunConfig]
"""Makes a config of `method`, `seed` and other fields; see `config`."""
MakeRun = Callable[..., RunDir]
"""Makes a run folder of `method`, `seed`, `rows` of the matrix, `text` rows, and other fields of the config."""


def config(method: str = "lora", seed: int = 0, **changes: Any) -> RunConfig:
    task = {"version": 1, "kind": "vqa", "data": {"path": "world:x"}}
    text = {"task": "facts", "version": 1, "kind": "text", "lm_eval": {"task": "facts"}}
    sequence: dict[str, Any] = {
        "sequence": "mini",
        "version": 1,
        "base": {"model": "tiny"},
        "stages": [{"task": name} for name in ordered(TASKS, changes.get("order", "given"))],
        "retention": ["facts"],
        "train": {"steps": 4, "batch_size": 2, "learning_rate": 0.1},
    }
    tasks = {**{name: {"task": name, **task} for name in TASKS}, "facts": text}
    return RunConfig(**{"sequence": sequence, "tasks": tasks, "method": method, "seed": seed, **changes})


def fill(run: RunDir, rows: Sequence[Sequence[float]], text: Sequence[float] = ()) -> None:
    """Writes a matrix, and the text row of each stage, as cells."""
    for stage, row in enumerate(rows):
        for task, value in zip(run.config.stages, row, strict=True):
            run.append_cell(cell_of(stage, task, value, stderr=2.0, n=100, scorer="exact@1"))
    for stage, value in enumerate(text):
        run.append_cell(cell_of(stage, run.config.retention[0], value, stderr=1.0, n=50, scorer="lm-eval"))


@pytest.fixture
def make_config() -> MakeConfig:
    return config


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        method: str = "lora",
        seed: int = 0,
        rows: Sequence[Sequence[float]] = (),
        text: Sequence[float] = (),
        **changes: Any,
    ) -> RunDir:
        run = open_run(config(method, seed, **changes), tmp_path / "runs")
        fill(run, rows, text)
        return run

    return make
