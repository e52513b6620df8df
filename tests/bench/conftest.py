"""A small run config, and folders for runs of it."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from moextend.bench.run.rundir import Cell, RunConfig, RunDir, open_run

TASKS = ("colour", "count")


def config(method="lora", seed=0, **changes):
    task = {"version": 1, "kind": "vqa", "data": {"path": "world:x"}}
    text = {"task": "facts", "version": 1, "kind": "text", "lm_eval": {"task": "facts"}}
    sequence = {
        "sequence": "mini",
        "version": 1,
        "base": {"model": "tiny"},
        "stages": [{"task": name} for name in TASKS],
        "retention": ["facts"],
        "train": {"steps": 4, "batch_size": 2, "learning_rate": 0.1},
    }
    tasks = {**{name: {"task": name, **task} for name in TASKS}, "facts": text}
    return RunConfig(**{"sequence": sequence, "tasks": tasks, "method": method, "seed": seed, **changes})


def fill(run: RunDir, rows, text=()):
    """Writes a matrix, and the text row of each stage, as cells."""
    for stage, row in enumerate(rows):
        for task, value in zip(run.config.stages, row, strict=True):
            run.append_cell(Cell(stage=stage, task=task, value=value, stderr=2.0, n=100, scorer="exact@1"))
    for stage, value in enumerate(text):
        run.append_cell(
            Cell(stage=stage, task=run.config.retention[0], value=value, stderr=1.0, n=50, scorer="lm-eval")
        )


@pytest.fixture
def make_config():
    return config


@pytest.fixture
def make_run(tmp_path):
    def make(method="lora", seed=0, rows=(), text=(), **changes):
        run = open_run(config(method, seed, **changes), tmp_path / "runs")
        fill(run, rows, text)
        return run

    return make


@pytest.fixture(scope="session")
def ledger():
    """The module that writes run folders without training."""
    path = Path(__file__).with_name("ledger.py")
    spec = importlib.util.spec_from_file_location("bench_ledger", path)
    module = sys.modules["bench_ledger"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def real_data():
    """The folder of real data; the test is skipped where there is none."""
    folder = Path(
        os.environ.get("MOEXTEND_REAL_DATA", Path(__file__).parents[2] / "../shared/data")
    ).resolve()
    if not (folder / "vqa").is_dir():
        pytest.skip(f"no real data in {folder} (set MOEXTEND_REAL_DATA)")
    return folder
