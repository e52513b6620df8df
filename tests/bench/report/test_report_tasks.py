"""Tables of final scores by task, of text, and of settings side by side."""

import pytest

from moextend.bench.report import tables
from moextend.bench.report.collect import collect
from moextend.bench.report.table import Table
from moextend.bench.run.records import StageCost
from moextend.errors import InputError
from tests.bench.cells import cell_of
from tests.bench.conftest import MakeConfig, MakeRun
from tests.bench.report.conftest import ROWS


def rows_of(table: Table) -> dict[str, dict[str, str]]:
    return {row["method"].text: {key: value.text for key, value in row.items()} for row in table.records}


def test_final_scores_by_task_with_their_bounds(done: MakeRun) -> None:
    runs = [
        done(), done(seed=1, rows=[*ROWS[:2], [62.0, 70.0]]), done("ewc"),
        done("full-ft", mode="joint", rows=[[20.0, 30.0], [85.0, 75.0]], text=(90.0, 80.0)),
        done("full-ft", mode="independent", rows=[[20.0, 30.0], [81.0, 30.0], [20.0, 72.0]], text=()),
    ]  # fmt: skip
    (table,) = tables(collect(runs), "tasks")
    rows = rows_of(table)
    assert list(rows) == ["zero-shot", "joint, full-ft", "each alone, full-ft", "lora", "ewc"]
    assert rows["lora"] == {
        "method": "lora", "colour": "61.0 ±1.4", "count": "70.0 ±0.0", "mean": "65.5 ±0.7",
        "learned_colour": "80.0 ±0.0", "learned_count": "70.0 ±0.0",
    }  # fmt: skip
    assert (rows["zero-shot"]["colour"], rows["zero-shot"]["mean"]) == ("20.0 ±0.0", "25.0 ±0.0")
    assert (rows["joint, full-ft"]["count"], rows["each alone, full-ft"]["count"]) == ("75.0", "72.0")


def test_text_stands_below_the_row_of_the_base(done: MakeRun) -> None:
    runs = [done(), done("moextend", text=(90.0,) * 3, facts={"text_untouched": True})]
    (table,) = tables(collect(runs), "text")
    rows = rows_of(table)
    assert list(rows) == ["zero-shot", "lora", "moextend"]
    keys = ("facts", "mean", "change", "change_facts")
    assert [rows["zero-shot"][key] for key in keys] == ["90.0", "90.0", "", ""]
    assert [rows["lora"][key] for key in keys] == ["85.0", "85.0", "-5.0", "-5.0"]
    assert rows["moextend"]["change"] == "0.0†" and any("by construction" in note for note in table.notes)


def test_tasks_that_are_only_scored(done: MakeRun, make_config: MakeConfig) -> None:
    given = make_config()
    changes = {
        "sequence": {**given.sequence, "transfer": ["shade"]},
        "tasks": {**given.tasks, "shade": {**given.tasks["count"], "task": "shade"}},
    }
    run = done(**changes)
    for stage, value in enumerate((30.0, 28.0, 12.0)):
        run.append_cell(cell_of(stage, "shade", value, stderr=2.0, n=100, scorer="exact@1"))
    (table,) = tables(collect([run]), "transfer")
    assert table.title == "mini: tasks that are only scored"
    rows = {method: (row["shade"], row["mean"], row["change"]) for method, row in rows_of(table).items()}
    assert rows == {"zero-shot": ("30.0", "30.0", ""), "lora": ("12.0", "12.0", "-18.0")}
    other = done("ewc", sequence={**given.sequence, "sequence": "other"})
    (table,) = tables([*collect([run]), *collect([other])], "transfer")
    assert table.notes[-1].startswith("Not in these tables: other: no run scores a task")


def test_settings_that_differ_are_columns(done: MakeRun) -> None:
    common = {"rank": 8, "experts": True}
    runs = [
        done("moextend", facts={"settings": {"layers": "all", "width": 1.0}}),
        done("moextend:layers=first", facts={"settings": {"layers": "first", "width": 1.0}}),
        done("lora", facts={"settings": common}),
        done("ewc", facts={"settings": {**common, "strength": 1.0}}),
        done("ewc:strength=2", facts={"settings": {**common, "strength": 2.0}}),
    ]
    for number, run in enumerate(runs, 1):
        run.write_cost(1, "colour", StageCost(trained_parameters=1000 * number))
    moextend, ewc = tables(collect(runs), "ablations")
    assert [column.title for column in moextend.columns[1:3]] == ["layers", "LA"]
    assert rows_of(moextend)["moextend:layers=first"] == {
        "method": "moextend:layers=first", "set_layers": "first", "la": "75.0", "acc": "65.0", "bwt": "-20.0",
        "text_change": "-5.0", "trained_parameters": "2,000", "runs": "1",
    }  # fmt: skip
    assert [row["set_strength"] for row in rows_of(ewc).values()] == ["1", "2"]


@pytest.mark.parametrize(
    ("view", "problem"),
    [
        ("ablations", r"report ablations: no method ran with several settings\. Run a method"),
        ("text", r"report text: no run scores text tasks"),
        (
            "transfer",
            r"report transfer: no run scores a task that it does not learn, other than text tasks\.",
        ),
    ],
)
def test_what_is_not_there_is_an_error_with_a_hint(
    done: MakeRun, make_config: MakeConfig, view: str, problem: str
) -> None:
    experiments = collect([done("ewc", sequence={**make_config().sequence, "retention": []}, text=())])
    with pytest.raises(InputError, match=problem):
        tables(experiments, view)
