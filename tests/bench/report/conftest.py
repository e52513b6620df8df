"""Runs that are done, with matrices that are known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.frame import frame
from moextend.bench.run.progress import _write
from moextend.bench.run.records import State, Status
from moextend.bench.run.rundir import RunDir, find_runs
from tests.bench import ledger
from tests.bench.conftest import MakeRun

ROWS = [[20.0, 30.0], [80.0, 32.0], [60.0, 70.0]]
"""The matrix of two tasks, unless others are given."""


@pytest.fixture
def done(make_run: MakeRun) -> MakeRun:
    """Makes a run that is done (or in another `state`), with these facts."""

    def make(
        method: str = "lora",
        seed: int = 0,
        rows: Sequence[Sequence[float]] = ROWS,
        text: Sequence[float] = (90.0, 88.0, 85.0),
        state: State = "done",
        facts: dict[str, Any] | None = None,
        **changes: Any,
    ) -> RunDir:
        run = make_run(method, seed, rows, text, **changes)
        _write(run.folder, Status(state=state))
        run.write_facts(**(facts or {"task_identity": "none"}))
        return run

    return make


METHODS = ("lora", "ewc", "moextend:scope=all")
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs of three stages and two text tasks."""
    folder = tmp_path_factory.mktemp("frame") / "runs"
    shape = ledger.Shape(stages=3, texts=2, items=40)
    ledger.write_runs(folder, shape, dict.fromkeys(METHODS, ledger.Kind(run_sd=0.05)), SEEDS)
    return folder


@pytest.fixture(scope="module")
def experiments(runs: Path) -> list[Experiment]:
    return collect(find_runs(runs))


@pytest.fixture(scope="module")
def results(experiments: list[Experiment]) -> DataFrame:
    return frame(experiments)
