"""Every table shows where the settings of each method come from."""

import pytest

from moextend.bench.report import How, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.notes import source_note, sources
from moextend.bench.report.views.gate import gate
from tests.bench.conftest import MakeRun

SOURCES = {
    "lora": "test items",
    "ewc": "validation items",
    "o-lora": "nothing",
    "lwf": "default",
    "replay": None,
    "full-ft": "validation items of tiny",
    "zero-shot": "test items",
}
NOTE = (
    "Settings: ‡ tuned on test items: lora; not stated: replay; not tuned: o-lora; "
    "default: lwf; tuned on validation items of tiny: full-ft; tuned on validation items: ewc."
)


@pytest.fixture
def experiment(done: MakeRun) -> Experiment:
    (found,) = collect([done(method, tuned_on=source) for method, source in SOURCES.items()])
    return found


def test_every_table_has_the_note_and_marks_what_was_tuned_on_test_items(experiment: Experiment) -> None:
    for view in ("forgetting", "tasks", "text", "costs"):
        (table,) = tables([experiment], view)
        named = [row[0].text for row in table.rows if row[0].of in SOURCES]
        assert NOTE in table.notes, view
        assert "lora‡" in named and {"ewc", "lwf", "replay", "zero-shot"} <= {*named}
    for table in (*tables([experiment], "matrix"), *tables([experiment], "comparison", How("ewc"))):
        assert any(note.startswith("Settings: ") for note in table.notes)
    assert NOTE in gate(experiment).notes


def test_a_bound_has_a_source_of_its_own(done: MakeRun) -> None:
    runs = [
        done("lora", tuned_on="validation items"), done("lora", tuned_on="test items", mode="joint"),
        done("lora", mode="independent"),
    ]  # fmt: skip
    (table,) = tables(collect(runs))
    note = (
        "‡ tuned on test items: lora (joint); not stated: lora (each alone); tuned on validation items: lora."
    )
    assert f"Settings: {note}" in table.notes
    sources = {row[0].text: row[-1].text for row in table.rows}
    assert sources["joint, lora‡"] == "test items" and sources["lora"] == "validation items"


def test_of_runs_with_several_sources_the_least_favourable_counts(done: MakeRun) -> None:
    runs = [done("lora"), done("lora", 1, tuned_on="validation items"), done("ewc", tuned_on="default")]
    (experiment,) = collect(runs)
    assert source_note(sources([experiment])) == "Settings: not stated: lora; default: ewc."
    (nothing,) = collect(runs[:1])
    assert not any("Settings" in note for note in tables([nothing])[0].notes), "nothing is stated"
