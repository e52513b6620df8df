"""Reports of runs whose matrices are known."""

import csv
import io

import pytest

from moextend.bench.report import render, tables, view
from moextend.bench.report.collect import collect, some
from moextend.bench.report.formats.csv import cells
from moextend.bench.report.table import Table, Value
from moextend.bench.report.views.comparison import comparison_table
from moextend.bench.report.views.forgetting import forgetting_table
from moextend.bench.run.progress import Progress, Unit
from moextend.bench.run.records import StageCost
from moextend.errors import InputError, RunFailed, UnknownName
from tests.bench.cells import cell_of
from tests.bench.conftest import MakeConfig, MakeRun
from tests.bench.report.conftest import ROWS


def row_of(table: Table, name: str) -> dict[str, Value]:
    (row,) = [row for row in table.records if row["method"].text == name]
    return row


def test_the_row_of_one_run(done: MakeRun) -> None:
    run = done(facts={"task_identity": "given"})
    run.write_cost(1, "colour", StageCost(trained_parameters=12000, kept_mb=0.05, flops=2e11))
    run.write_cost(2, "count", StageCost(trained_parameters=11000, kept_mb=0.1, flops=3e11, probe_flops=1e10))
    (experiment,) = collect([run])
    table = forgetting_table(experiment)
    row = row_of(table, "lora")
    texts = [row[key].text for key in ("task_id", "la", "acc", "bwt", "fm")]
    assert texts == ["given", "75.0", "65.0", "-20.0", "+20.0"]
    assert [row[key].text for key in ("text_before", "text_after", "text_change")] == ["90.0", "85.0", "-5.0"]
    assert row["text_retention"].number == pytest.approx(100 * 85 / 90)
    assert row["bwt_t"].number == -10
    assert row["fwt"].number == 2
    assert row["intransigence"].text == "-"
    assert row_of(table, "zero-shot")["acc"].text == "25.0"
    assert [row[key].text for key in ("params", "kept_mb", "tflop")] == ["12.0k", "0.10", "0.51"]
    assert any("the base (90.0) to the end" in note for note in table.notes)
    items = "One cell of the matrix: 50 to 100 items, standard error over items 1.0 to 2.0 points."
    assert items in table.notes


def test_bounds_stand_above_the_methods(done: MakeRun) -> None:
    runs = [
        done(facts={"task_identity": "none", "majority": {"colour": 25.0, "count": 50.0}}),
        done(mode="joint", rows=[[20.0, 30.0], [85.0, 75.0]], text=(90.0, 87.0)),
        done(mode="independent", rows=[[20.0, 30.0], [80.0, 30.0], [20.0, 72.0]]),
    ]
    table = forgetting_table(collect(runs)[0])
    names = [[row[0].text for row in section] for section in table.sections]
    assert names == [["majority answer", "zero-shot", "joint, lora", "each alone, lora"], ["lora"]]
    assert row_of(table, "majority answer")["acc"].text == "37.5"
    joint = row_of(table, "joint, lora")
    assert [joint[key].text for key in ("acc", "text_after", "text_change")] == ["80.0", "87.0", "-3.0"]
    assert row_of(table, "each alone, lora")["la"].text == "76.0"
    assert row_of(table, "lora")["intransigence"].number == pytest.approx((5 + 5) / 2)


@pytest.mark.parametrize(
    ("bound", "expected"), [("joint", {"ACC": "-15.0", "Δ text": "-2.0"}), ("individual", {"LA": "-1.0"})]
)
def test_methods_are_compared_with_a_bound_in_what_it_measures(
    done: MakeRun, bound: str, expected: dict[str, str]
) -> None:
    runs = [
        done(),
        done(mode="joint", rows=[[20.0, 30.0], [85.0, 75.0]], text=(90.0, 87.0)),
        done(mode="independent", rows=[[20.0, 30.0], [80.0, 30.0], [20.0, 72.0]]),
    ]
    (experiment,) = collect(runs)
    table = comparison_table(experiment, f"{bound}:lora")
    assert {row["metric"].text: row["difference"].text for row in table.records} == expected
    assert not any("joint" in row["method"].text for row in comparison_table(experiment, "zero-shot").records)
    with pytest.raises(UnknownName, match="joint:lora"):
        comparison_table(experiment, "joint")


def test_the_majority_answer_is_a_mean_over_seeds_whose_worlds_differ(done: MakeRun) -> None:
    runs = [done(facts={"majority": {"colour": 25.0, "count": 50.0}})]
    runs += [done(seed=1, facts={"majority": {"colour": 20.0, "count": 50.0}})]
    row = row_of(forgetting_table(collect(runs)[0]), "majority answer")
    assert row["acc"].text == "36.2 ±1.8"


def test_runs_that_are_not_done_are_left_out_and_named(done: MakeRun) -> None:
    runs = [done(), done(seed=1, state="interrupted"), done("full-ft", state="waiting")]
    with pytest.raises(RunFailed), Progress(runs[2].folder, [Unit("score", 0, "x")]):
        raise RunFailed("no disk space left.")
    (experiment,) = collect(runs)
    table = forgetting_table(experiment)
    assert row_of(table, "lora")["runs"].text == "1"
    assert table.notes[-1] == "Left out: lora-s1 (interrupted); full-ft-s0 (failed: no disk space left.)."


def test_unfinished_runs_are_marked_when_asked_for(done: MakeRun) -> None:
    runs = [done(), done("full-ft", state="interrupted", rows=ROWS[:2], text=(90.0,))]
    table = forgetting_table(collect(runs, unfinished=True)[0])
    row = row_of(table, "full-ft*")
    assert [row[key].text for key in ("la", "acc", "bwt", "text_after")] == ["-", "-", "-", "-"]
    assert "*: not finished: full-ft-s0." in table.notes


def test_no_run_done_is_an_error_with_a_hint(done: MakeRun) -> None:
    with pytest.raises(InputError, match=r"no run is done: lora-s0 \(waiting\)\. Run first: .* --unfinished"):
        some(collect([done(state="waiting")]))
    with pytest.raises(InputError, match="no run is done"):
        some(collect([]))


def test_runs_of_other_settings_never_share_a_table(done: MakeRun, make_config: MakeConfig) -> None:
    other = make_config().sequence
    other = {**other, "train": {**other["train"], "steps": 9}}
    experiments = collect([done(), done("full-ft", sequence=other), done("moextend")])
    assert [len(experiment.results) for experiment in experiments] == [2, 1]
    first, second = tables(experiments)
    assert first.key != second.key and first.title != second.title
    assert any("sequence.train.steps 9 instead of 4" in note for note in second.notes)


def test_the_matrix_shows_every_stage_and_text_apart(done: MakeRun) -> None:
    tasks, text = view(collect([done()])[0], "matrix")
    shown = [[value.text for value in row] for row in tasks.sections[0]]
    assert shown == [
        ["0 base", "20.0 ±2.0", "30.0 ±2.0", "25.0"],
        ["1 colour", "80.0 ±2.0", "32.0 ±2.0", "56.0"],
        ["2 count", "60.0 ±2.0", "70.0 ±2.0", "65.0"],
    ]
    styles = [[value.style for value in row[1:3]] for row in tasks.sections[0]]
    assert styles == [["dim", "dim"], ["bold", "dim"], ["", "bold"]]
    assert [row[1].text for row in text.sections[0]] == ["90.0 ±1.0", "88.0 ±1.0", "85.0 ±1.0"]


def test_the_terminal_table_fits_80_columns_with_spreads_below_the_numbers(done: MakeRun) -> None:
    facts = {"task_identity": "given", "majority": {"colour": 25.0, "count": 30.0}}
    runs = [done(seed=s) for s in (0, 1, 2)] + [done("moextend:scope=all,routing=paper", facts=facts)]
    lines = render([forgetting_table(collect(runs)[0])], "table").splitlines()
    heads = [line for line in lines if line.startswith((" method", " lora", " moextend", "    "))]
    assert max(map(len, heads)) <= 80 and max(map(len, lines)) <= 100
    shown = [" ".join(line.split()) for line in lines]
    place = shown.index("lora none 75.0 65.0 -20.0 +20.0 +2.0 -5.0")
    assert shown[place + 1] == "±0.0 ±0.0 ±0.0 ±0.0 ±0.0 ±0.0"
    assert any(line.startswith("moextend given") for line in shown)
    assert "±: standard deviation over runs." in shown
    assert "Short names: moextend is moextend:scope=all,routing=paper." in shown


def test_text_that_nothing_learned_can_answer_is_marked(done: MakeRun) -> None:
    text = (90.0, 90.0, 90.0)
    facts = {"task_identity": "inferred", "text_untouched": True}
    runs = [done("moextend:scope=auto", facts=facts, text=text), done("lora", text=text)]
    table = forgetting_table(collect(runs)[0])
    assert row_of(table, "moextend:scope=auto")["text_change"].text == "0.0†"
    assert row_of(table, "lora")["text_change"].text == "0.0"
    assert any(note.startswith("†: by construction") for note in table.notes)
    assert not any("†" in note for note in forgetting_table(collect(runs[1:])[0]).notes)
    compared = comparison_table(collect(runs)[0], "lora")
    assert compared.sections[-1][0][2].text == "0.0†" and any("†" in note for note in compared.notes)


def test_csv_of_cells_can_be_traced(done: MakeRun) -> None:
    run = done(text=())
    run.append_cell(cell_of(2, "count", 71.0, n=9, weights="abc", predictions="predictions/abc/count.jsonl"))
    lines = list(csv.DictReader(io.StringIO(cells(collect([run])))))
    assert len(lines) == 6
    assert lines[-1] | {"value": "71.0", "weights": "abc", "run": "lora-s0", "stage": "2"} == lines[-1]
    assert lines[-1]["predictions"] == "predictions/abc/count.jsonl"
