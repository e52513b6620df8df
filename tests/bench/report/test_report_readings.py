"""What the answers are besides their score."""

from collections.abc import Sequence
from typing import Any

import pytest

from moextend.bench.report import tables
from moextend.bench.report.collect import collect
from moextend.bench.report.explain import explain
from moextend.bench.report.table import Table
from moextend.bench.run.rundir import Cell, RunDir
from moextend.errors import InputError
from tests.bench.conftest import TASKS, MakeRun

FIRST, SECOND = TASKS
ROWS = [[20.0, 30.0], [80.0, 32.0]]


def shown(runs: Sequence[RunDir]) -> Table:
    return tables(collect(runs, unfinished=True), "readings")[0]


def answered(run: RunDir, value: float, **readings: Any) -> None:
    run.append_cell(Cell(stage=2, task=FIRST, value=value, scorer="vqa@2", readings=readings))


def test_a_row_has_every_reading_and_the_older_version(make_run: MakeRun) -> None:
    run = make_run("lora", rows=ROWS)
    answered(run, 60.0, strict=65.0, normalised=70.0, **{"vqa@1": 55.0})
    table = shown([run])
    assert [[value.text for value in row] for row in table.sections[0]] == [
        ["lora*", FIRST, "vqa@2", "60.0", "65.0", "70.0", "-", "vqa@1 55.0"]
    ], "the second task has no readings"


def test_runs_of_a_method_share_a_row(make_run: MakeRun) -> None:
    runs = [make_run("lora", seed=seed, rows=ROWS) for seed in (0, 1)]
    for run, strict in zip(runs, (40.0, 50.0), strict=True):
        answered(run, 60.0, strict=strict, normalised=70.0)
    (row,) = shown(runs).sections[0]
    assert row[4].number == 45.0 and row[4].text.startswith("45.0 ±")


def test_runs_without_readings_are_reported(make_run: MakeRun) -> None:
    with pytest.raises(InputError, match="no answer to an image task has readings"):
        tables(collect([make_run("lora", rows=ROWS)], unfinished=True), "readings")


@pytest.mark.parametrize(("strict", "normalised", "noted"), [(10.0, 60.0, True), (55.0, 60.0, False)])
def test_a_wrong_form_is_reported(make_run: MakeRun, strict: float, normalised: float, noted: bool) -> None:
    run = make_run("lora", rows=ROWS)
    answered(run, 10.0, strict=strict, normalised=normalised)
    (row,) = shown([run]).sections[0]
    assert ("the form is wrong, not the answer" in row[-1].text) == noted


def test_scores_by_kind_stand_below(make_run: MakeRun) -> None:
    run = make_run("lora", rows=ROWS)
    run.append_cell(
        Cell(
            stage=2,
            task=FIRST,
            value=60.0,
            readings={"strict": 60.0},
            by_kind={"how many": 40.0, "which": 80.0},
        )
    )
    _, kinds = tables(collect([run], unfinished=True), "readings")
    assert [[value.text for value in row] for row in kinds.sections[0]] == [
        ["lora*", FIRST, "how many", "40.0"],
        ["lora*", FIRST, "which", "80.0"],
    ]


def test_tables_say_that_an_error_rate_is_shown_as_accuracy(make_run: MakeRun) -> None:
    run = make_run("lora", rows=ROWS)
    run.append_cell(
        Cell(stage=2, task=FIRST, value=60.0, scorer="wer@1", readings={"strict": 0.0, "wer": 41.5})
    )
    note = f"{FIRST}: word accuracy: 100 - WER, errors of an item counted up to its length (wer@1); "
    for view in ("forgetting", "matrix", "readings"):
        notes = [note for table in tables(collect([run], unfinished=True), view) for note in table.notes]
        assert sum(each.startswith(note) for each in notes) == 1
    assert shown([run]).sections[0][0][-1].text == "wer 41.5"
    found = explain(run, 2, FIRST).sources
    assert found["score is"].startswith("word accuracy") and found["readings"] == "strict 0.0, wer 41.5"
    assert "score is" not in explain(run, 1, FIRST).sources
