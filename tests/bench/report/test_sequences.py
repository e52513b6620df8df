"""What holds over several sequences: the mean of their differences, and a correction for all of them."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from moextend.bench import stats
from moextend.bench.report import How, tables
from moextend.bench.report.collect import Experiment, collect
from tests.bench.ledger import Kind, Shape, write_runs

KINDS = {
    "lora": Kind(keeps=0.3, run_sd=0.02),
    "ewc": Kind(keeps=0.9, run_sd=0.02),
    "lwf": Kind(keeps=0.3, run_sd=0.02),
}


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> list[Experiment]:
    folder = tmp_path_factory.mktemp("sequences")
    runs = [
        run
        for stages in (2, 3)
        for run in write_runs(folder / str(stages), Shape(stages=stages, items=300), KINDS, range(4))
    ]
    return collect(runs)


def test_the_mean_over_sequences_and_the_correction_for_all_of_them(experiments: list[Experiment]) -> None:
    first, second, table = tables(experiments, "comparison", How("lora"))
    rows = {(row["method"].text, row["metric"].text): row for row in table.records}
    assert "FM" not in {metric for _, metric in rows} and {method for method, _ in rows} == {"ewc", "lwf"}
    alone = {
        (row["method"].text, name): row
        for name, one in zip((e.label for e in experiments), (first, second), strict=True)
        for row in one.records
        if row["metric"].text == "ACC"
    }
    corrected = stats.holm([row["p_alone"].number or 0.0 for row in alone.values()])
    for method in ("ewc", "lwf"):
        row = rows[method, "ACC"]
        own = [each["difference"].number or 0.0 for (name, _), each in alone.items() if name == method]
        assert row["difference"].number == pytest.approx(fmean(own)) and row["sequences"].number == 2
        sure = [name for (of, name), p in zip(alone, corrected, strict=True) if of == method and p < 0.05]
        assert row["better"].text == (", ".join(sure) or "-")
    assert (
        rows["ewc", "ACC"]["verdict"].text == "better" and rows["lwf", "ACC"]["verdict"].text == "undecided"
    )


def test_not_worse_is_said_where_a_loss_of_the_margin_is_excluded(experiments: list[Experiment]) -> None:
    for margin, word in ((1.0, "undecided"), (3.0, "not worse"), (12.0, "equivalent")):
        *_, table = tables(experiments, "comparison", How("lora", margin))
        (row,) = [row for row in table.records if (row["method"].text, row["metric"].text) == ("lwf", "LA")]
        assert row["verdict"].text == word
        assert ((row["p_not_worse"].number or 0.0) < stats.LEVEL) == (word != "undecided")


def test_sequences_of_the_same_stages_are_named_and_one_without_a_row_is_not_counted(
    experiments: list[Experiment], tmp_path: Path
) -> None:
    again = collect(write_runs(tmp_path / "again", Shape(stages=2, items=200), KINDS, range(4)))
    alone = collect(write_runs(tmp_path / "alone", Shape(stages=4), {"lora": KINDS["lora"]}, range(4)))
    for extra, title in (([], "2 sequences"), (alone, "2 sequences"), (again, "3 sequences")):
        *_, table = tables([*experiments, *extra], "comparison", How("lora"))
        assert table.title == f"{title}: differences from lora"
        same = [note for note in table.notes if "the same stages" in note]
        assert len(same) == (extra is again) and all(
            note.startswith(f"{experiments[0].label}, {again[0].label}: ") for note in same
        )


def test_one_sequence_has_no_such_table(experiments: list[Experiment]) -> None:
    assert [table.kind for table in tables(experiments[:1], "comparison", How("lora"))] == ["comparison"]
