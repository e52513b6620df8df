"""Row 0 of an audit: the answers of the base, of a kept run or made now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from moextend.bench.audit.base import base_row
from moextend.bench.data import data_digest, source
from moextend.bench.run.inputs import data_part
from moextend.bench.run.launch import Outcome
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir
from moextend.bench.sequence import find_sequence
from moextend.bench.task import find_task
from tests.bench.cells import cell_of
from tests.robustness import workspace as small


def test_answers_of_the_base_to_other_data_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit, a correction of the data, and another audit: its row 0 is that of the corrected data."""
    folder, answers = small.make(tmp_path / "w"), list[float]()

    def follow(executor: object, runs: Sequence[Path], view: object) -> dict[Path, Outcome]:
        answers.append(50.0 + len(answers))
        for run in map(RunDir, runs):
            for name in ("colour", "shade", "words"):
                cell = cell_of(0, name, answers[-1], n=4, scorer="exact@1")
                if name != "words":
                    digest = data_digest(run.config.task_spec(name), "test", folder)
                    cell = cell.model_copy(update={"inputs": {data_part("test", name): digest}})
                run.append_cell(cell)
        return {run: Outcome(run, "done") for run in runs}

    def row() -> float | None:
        sequence = find_sequence("small", folder)
        found = base_row(sequence, folder, folder / "runs", answer=True, console=Console(quiet=True))
        cell = found.cell("colour")
        return cell.value if cell else None

    monkeypatch.setattr("moextend.bench.audit.base.submit", lambda _, runs, __: runs)
    monkeypatch.setattr("moextend.bench.audit.base.follow", follow)
    assert (row(), row()) == (50.0, 50.0)
    task = find_task("colour", folder)
    assert task.data is not None
    data = source.place(task.data.path, task.folder(), folder) / "test.jsonl"
    data.write_text(data.read_text().replace("red", "green"))
    assert (row(), row()) == (51.0, 51.0)


def test_a_damaged_run_does_not_stop_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small.make(tmp_path / "w")
    (config,) = resolve(Request(folder, "small", methods=("zero-shot",)))
    run = open_run(config, folder / "runs")
    (run.folder / "scores.jsonl").write_text("no JSON\n" * 2)
    found = base_row(
        find_sequence("small", folder), folder, folder / "runs", answer=False, console=Console(quiet=True)
    )
    assert "not answered by the base" in found.reason
