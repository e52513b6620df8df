"""Every table shows where the settings of each method come from."""

from collections.abc import Sequence

import pytest

from moextend.bench.report import View, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.notes import source_note, sources
from moextend.bench.report.table import Table
from moextend.bench.report.views.gate import gate
from moextend.bench.run.rundir import RunDir
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
    runs: list[RunDir] = [done(method, tuned_on=source) for method, source in SOURCES.items()]
    (found,) = collect(runs)
    return found


def notes(found: Sequence[Table]) -> list[str]:
    return [note for table in found for note in table.notes]


@pytest.mark.parametrize("view", ["forgetting", "tasks", "text", "costs"])
def test_a_row_tuned_on_test_items_is_marked_and_a_note_names_the_others(
    experiment: Experiment, view: View
) -> None:
    (table,) = tables([experiment], view)
    assert NOTE in table.notes
    named = [row[0].text for section in table.sections for row in section if row[0].of in SOURCES]
    assert "lora‡" in named and {"ewc", "lwf", "replay", "zero-shot"} <= {*named}


def test_every_view_has_the_note(experiment: Experiment) -> None:
    for view in ("forgetting", "tasks", "text", "costs", "matrix"):
        for table in tables([experiment], view):
            assert any(note.startswith("Settings: ") for note in table.notes), view
    compared = tables([experiment], "comparison", baseline="ewc")
    assert any(note.startswith("Settings: ‡ tuned on test items: lora") for note in notes(compared))
    assert NOTE in gate(experiment).notes


def test_of_runs_with_several_sources_the_least_favourable_counts(done: MakeRun) -> None:
    (experiment,) = collect(
        [done("lora"), done("lora", 1, tuned_on="validation items"), done("ewc", tuned_on="default")]
    )
    assert source_note(sources([experiment])) == "Settings: not stated: lora; default: ewc."


def test_runs_of_which_nothing_is_stated_have_no_note(done: MakeRun) -> None:
    (experiment,) = collect([done("lora"), done("ewc")])
    assert not any("Settings" in note for note in notes(tables([experiment])))
