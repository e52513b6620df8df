"""What the answers are besides their score."""

from collections.abc import Sequence
from typing import Any

import pytest

from moextend.bench.report import tables
from moextend.bench.report.collect import collect
from moextend.bench.report.explain import explain
from moextend.bench.report.table import Table
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError
from tests.bench.cells import cell_of
from tests.bench.conftest import TASKS, MakeRun

FIRST, SECOND = TASKS
ROWS = [[20.0, 30.0], [80.0, 32.0]]
OLDER: Any = {"vqa@1": 55.0}


def shown(runs: Sequence[RunDir], view: str = "readings") -> list[Table]:
    return tables(collect(runs, unfinished=True), view)


def answered(run: RunDir, value: float, scorer: str = "vqa@2", kinds: Any = (), **readings: Any) -> None:
    cell = cell_of(2, FIRST, value, scorer=scorer, readings=readings, by_kind=dict(kinds))
    run.append_cell(cell)


def test_a_row_has_every_reading_and_the_older_version_over_runs(make_run: MakeRun) -> None:
    runs = [make_run("lora", seed=seed, rows=ROWS) for seed in (0, 1)]
    with pytest.raises(InputError, match="no answer to an image task has readings"):
        shown(runs)
    for run, strict in zip(runs, (60.0, 70.0), strict=True):
        answered(run, 60.0, strict=strict, normalised=70.0, **OLDER)
    (row,) = shown(runs)[0].rows
    assert [value.text for value in row[:4]] == ["lora*", FIRST, "vqa@2", "60.0 ±0.0"], (
        "one task has readings"
    )
    assert row[4].number == 65.0 and row[4].text.startswith("65.0 ±") and row[6].text == "-"
    assert row[7].text == "vqa@1 55.0 ±0.0"


@pytest.mark.parametrize(("strict", "normalised", "noted"), [(10.0, 60.0, True), (55.0, 60.0, False)])
def test_a_wrong_form_is_reported(make_run: MakeRun, strict: float, normalised: float, noted: bool) -> None:
    run = make_run("lora", rows=ROWS)
    answered(run, 10.0, strict=strict, normalised=normalised)
    (row,) = shown([run])[0].rows
    assert ("the form is wrong, not the answer" in row[-1].text) == noted


def test_scores_by_kind_stand_below(make_run: MakeRun) -> None:
    run = make_run("lora", rows=ROWS)
    answered(run, 60.0, kinds={"how many": 40.0, "which": 80.0}, strict=60.0)
    _, kinds = shown([run])
    assert [[value.text for value in row] for row in kinds.rows] == [
        ["lora*", FIRST, "how many", "40.0"],
        ["lora*", FIRST, "which", "80.0"],
    ]


def test_tables_say_that_an_error_rate_is_shown_as_accuracy(make_run: MakeRun) -> None:
    run = make_run("lora", rows=ROWS)
    answered(run, 60.0, "wer@1", strict=0.0, wer=41.5)
    note = f"{FIRST}: word accuracy: 100 - WER, errors of an item counted up to its length (wer@1); "
    for view in ("forgetting", "matrix", "readings"):
        notes = [note for table in shown([run], view) for note in table.notes]
        assert sum(each.startswith(note) for each in notes) == 1
    found = explain(run, 2, FIRST).sources
    assert found["score is"].startswith("word accuracy") and found["readings"] == "strict 0.0, wer 41.5"
    assert "score is" not in explain(run, 1, FIRST).sources
