"""A run that is left out is named with its reason, in every view and format."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import unescape

import pytest
from typer.testing import CliRunner

from moextend.bench.report.collect import collect
from moextend.bench.run.opening import open_run
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.cli.main import app
from moextend.errors import UnknownName
from tests.bench.ledger import Kind, Shape, config, write_runs, write_variants

SHAPE = Shape(stages=2, texts=1, items=20)
REASONS = {
    "ewc-s1": "(damaged",
    "lora-s1": "(failed: the loss is not finite.)",
    "moextend-s1": "(interrupted)",
    "lora-s7": "(waiting) of other",
}
VIEWS = {
    "forgetting": [], "tasks": ["tasks"], "matrix": ["matrix"], "costs": ["costs"], "routing": ["routing"],
    "comparison": ["--baseline", "moextend"], "rewind": ["rewind"], "subsets": ["subsets"],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left_out") / "runs"
    kinds = {"lora": Kind(), "moextend": Kind(), "ewc": Kind(), "lora:rank=4": Kind()}
    made = {run.folder.name: run for run in write_runs(folder, SHAPE, kinds, [0, 1])}
    write_variants(made["lora-s0"])
    error = {"what": "the loss is not finite.", "where": "stage 2", "hint": None}
    _change_status(made["lora-s1"], state="failed", error=error)
    _change_status(made["moextend-s1"], state="interrupted")
    (made["ewc-s1"].folder / "facts.json").write_text("{")
    open_run(config(Shape(stages=1), "lora", 7, name="other"), folder)
    return folder


def _change_status(run: RunDir, **changes: object) -> None:
    path = run.folder / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def names_all(text: str) -> bool:
    shown = " ".join(unescape(text).replace("\\", "").split())
    return all(f"{name} {why}" in shown for name, why in REASONS.items())


@pytest.mark.parametrize(
    ("view", "form"),
    [
        *((view, "table") for view in VIEWS),
        *(("forgetting", form) for form in ("markdown", "latex", "csv")),
    ],
)
def test_report_names_it(runs: Path, view: str, form: str) -> None:
    found = CliRunner().invoke(app, ["bench", "report", "-w", str(runs.parent), *VIEWS[view], "-f", form])
    assert found.exit_code == 0, found.output
    assert names_all(found.stderr if form == "csv" else found.stdout), found.output


@pytest.mark.parametrize("form", ["table", "json"])
def test_gate_names_it(runs: Path, form: str) -> None:
    found = CliRunner().invoke(app, ["bench", "gate", "-w", str(runs.parent), "-f", form])
    assert names_all(found.stderr if form in ("csv", "json") else found.stdout), found.output
    if form == "json":
        json.loads(found.stdout)


def test_items_and_a_file_name_it_on_standard_error(runs: Path, tmp_path: Path) -> None:
    for more in (["items", "-f", "csv"], ["-f", "csv", "--out", str(tmp_path / "table.csv")]):
        found = CliRunner().invoke(app, ["bench", "report", "-w", str(runs.parent), *more])
        assert found.exit_code == 0 and names_all(found.stderr), found.output


@pytest.fixture(scope="module")
def two_sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two_sequences") / "runs"
    write_runs(folder, SHAPE, {"lora": Kind(), "ewc": Kind()}, [0])
    write_runs(folder, Shape(stages=1, texts=1, items=20), {"lwf": Kind(), "replay": Kind()}, [0])
    return folder


@pytest.mark.parametrize("form", ["csv", "html"])
def test_a_comparison_names_the_sequence_that_lacks_the_baseline(two_sequences: Path, form: str) -> None:
    command = ["bench", "report", "-w", str(two_sequences.parent), "-f", form, "--baseline"]
    found = CliRunner().invoke(app, [*command, "ewc"])
    assert found.exit_code == 0, found.output
    if form != "html":  # the page shows that sequence, with the comparison of its best method
        notes = " ".join((found.stderr if form == "csv" else found.stdout).split())
        assert re.search(r"ledger \[\w+\] \(no run of ewc\)", notes) and "lwf" not in found.stdout
    found = CliRunner().invoke(app, [*command, "lore"])
    assert isinstance(found.exception, UnknownName)
    assert "Did you mean 'lora'? Available: ewc, lora, lwf, replay, zero-shot." in str(found.exception)


def test_runs_of_other_data_are_in_a_table_of_their_own_and_named_in_every_view(tmp_path: Path) -> None:
    made = write_runs(
        tmp_path / "runs", replace(SHAPE, data="photos"), {"lora": Kind(), "moextend": Kind()}, [0, 1]
    )
    for run in made:
        inputs = {"train data of task 'task1'": "other" if run.folder.name == "lora-s1" else "same"}
        for cell in run.cells().values():
            run.append_cell(cell.model_copy(update={"inputs": inputs}))
    for view in ("forgetting", "tasks", "comparison"):
        shown = CliRunner().invoke(app, ["bench", "report", "-w", str(tmp_path), *VIEWS[view]])
        note = "In a table of their own, made of something else: lora-s1 (train data of task 'task1')."
        assert note in " ".join(shown.output.split()), view


def test_a_done_run_is_not_left_out_for_an_unfinished_or_damaged_copy(tmp_path: Path) -> None:
    (run,) = write_runs(tmp_path / "a", SHAPE, {"lora": Kind()}, [0])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    both = [*find_runs(tmp_path / "a"), *find_runs(tmp_path / "b")]
    _change_status(run, state="interrupted")
    (found,) = collect(both)
    assert [result.run.folder.parents[1].name for result in found.results] == ["b"]
    _change_status(run, state="done")
    (run.folder / "facts.json").write_text("{")
    (found,) = collect(both)
    assert [result.run.folder.parents[1].name for result in found.results] == ["b"]
    assert any("damaged" in name for name in found.left_out)
