"""Status and report of many runs open every file once."""

import builtins
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report import How, View, render, tables
from moextend.bench.report.collect import collect
from moextend.bench.run.live import row_of, table
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import find_runs
from tests.bench import ledger

METHODS, SEEDS = ("lora", "ewc", "lwf"), (0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 complete runs of 4 stages and 5 tasks."""
    runs = tmp_path_factory.mktemp("runs")
    shape = ledger.Shape(stages=4, texts=1, items=20, shared_images=False)
    ledger.write_runs(runs, shape, dict.fromkeys(METHODS, ledger.Kind(run_sd=0.02)), SEEDS)
    return runs


@pytest.fixture
def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file of the runs has been opened."""
    counts: Counter[str] = Counter()
    plain = io.open

    def counting(file: Any, *args: Any, **more: Any) -> Any:
        name = os.fspath(file) if not isinstance(file, int) else ""
        if str(name).startswith(str(folder)):
            counts[os.path.relpath(name, folder)] += 1
        return plain(file, *args, **more)

    monkeypatch.setattr(io, "open", counting)
    monkeypatch.setattr(builtins, "open", counting)
    return counts


@pytest.mark.parametrize("view", ["matrix", "comparison"])
def test_a_report_opens_every_file_once(folder: Path, opened: Counter[str], view: View) -> None:
    render(tables(collect(find_runs(folder)), view, How("lora")), "table")
    assert opened and max(opened.values()) == 1, opened.most_common(3)
    predictions = [name for name in opened if "/predictions/" in name]
    assert bool(predictions) == (view == "comparison")


def test_status_opens_two_small_files_a_run(folder: Path, opened: Counter[str]) -> None:
    table([row_of(run, read_status(run.folder)) for run in find_runs(folder)], 80)
    assert set(opened.values()) == {1}
    assert {name.rpartition("/")[2] for name in opened} == {"config.json", "status.json"}
