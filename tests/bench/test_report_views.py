"""The views of costs and of differences to a baseline, and what no view may make look good."""

from dataclasses import asdict

import pytest

from moextend.bench.progress import Status, _write
from moextend.bench.report import View, render, tables
from moextend.bench.report.collect import collect
from moextend.bench.rundir import Cell, find_runs
from moextend.bench.vqa import Record
from moextend.errors import UnknownName
from moextend.files import write_lines

ROWS = [[20.0, 30.0], [80.0, 32.0], [60.0, 70.0]]


def finish(run):
    _write(run.folder, Status(state="done"))
    return run


def answered(run, right, items=200, an_image=2):
    """Gives the run's last row predictions, of which `right(task, item)` says which are right."""
    for task in run.config.stages:
        records = [
            Record(f"{task}{i}", "a" if right(task, i) else "b", ("a",), group=f"image{i // an_image}")
            for i in range(items)
        ]
        path = run.predictions / "w" / f"{task}.jsonl"
        write_lines(path, [asdict(record) for record in records])
        value = 100 * sum(right(task, i) for i in range(items)) / items
        run.append_cell(
            Cell(2, task, value, 1.0, items, "exact@1", predictions=f"predictions/w/{task}.jsonl")
        )
    for text in run.config.retention:
        lines = [{"task": text, "id": i, "right": float(right(text, i))} for i in range(items)]
        write_lines(run.predictions / "w" / f"{text}.jsonl", [*lines, {"summary": {}}])
        value = 100 * sum(right(text, i) for i in range(items)) / items
        run.append_cell(
            Cell(2, text, value, 1.0, items, "lm-eval:acc", predictions=f"predictions/w/{text}.jsonl")
        )
    return finish(run)


def compared(runs, baseline="lora"):
    (experiment,) = collect(runs)
    (table,) = tables([experiment], "comparison", baseline=baseline)
    keys = [column.key for column in table.columns]
    return {(row[0].text, row[1].text): dict(zip(keys, row, strict=True)) for row in table.sections[0]}


def test_a_large_difference_is_found_and_none_is_not(make_run):
    rows = compared(
        [
            answered(make_run("lora", rows=ROWS), lambda task, i: i % 4 == 0),
            answered(make_run("ewc", rows=ROWS), lambda task, i: i % 4 < (1 if task == "facts" else 3)),
        ]
    )
    assert rows["ewc", "tasks"]["difference"].number == pytest.approx(50)
    assert rows["ewc", "tasks"]["verdict"].text == "higher"
    assert rows["ewc", "tasks"]["items"].number == 400
    assert rows["ewc", "text"]["difference"].number == 0
    assert rows["ewc", "text"]["verdict"].text == "same", "all items alike: no difference is hidden by chance"


def test_what_the_items_cannot_tell_is_called_underpowered(make_run):
    rows = compared(
        [
            answered(make_run("lora", rows=ROWS), lambda task, i: i % 2 == 0, items=40),
            answered(make_run("ewc", rows=ROWS), lambda task, i: i % 4 < 2, items=40),
        ]
    )
    words = rows["ewc", "tasks"]["verdict"].text
    assert words.startswith("underpowered (") and words.endswith(" items)")
    assert int(words.split("(")[1].split()[0].replace(",", "")) > 80


def test_only_runs_of_the_same_seed_are_paired(make_run):
    runs = [answered(make_run("lora", seed, ROWS), lambda task, i: i % 2 == 0) for seed in (0, 1)]
    runs += [answered(make_run("ewc", seed, ROWS), lambda task, i: i % 2 == 0 or i < 40) for seed in (1, 2)]
    row = compared(runs)["ewc", "tasks"]
    assert row["items"].number == 400, "two tasks of seed 1"
    assert row["difference"].number == pytest.approx(10)
    assert row["seeds"].text == "+10.0"


def test_the_baseline_must_have_run(make_run):
    with pytest.raises(UnknownName, match="no method 'replay'"):
        compared([answered(make_run("lora", rows=ROWS), lambda task, i: True)], "replay")


def test_costs_that_are_not_matched_are_marked(make_run):
    runs = []
    for method, trained in (("full-ft", 1000), ("lora", 990), ("ewc", 500)):
        run = finish(make_run(method, rows=ROWS))
        run.write_facts({"told": False, "base_flops": {"colour": 100.0, "count": 100.0}})
        for stage, task in enumerate(run.config.stages, 1):
            cost = {"trained_parameters": trained, "tokens": 50 * stage, "flops": 2e12, "stored_mb": 0.5}
            run.write_cost(
                stage, task, {**cost, "forward_flops": 110.0 + stage, "seconds": 3.0, "peak_rss_mb": 9.0}
            )
        runs.append(run)
    (table,) = tables(collect(runs), "costs")
    shown = [[value.text for value in row] for row in table.sections[0]]
    assert (
        shown[0] == ["full-ft", "1,000", "0.50", "75", "2.00", "1.11x", "3", "9", "-"]
        or shown[0][5] == "1.12x"
    )
    assert shown[1][1] == "990" and shown[2][1] == "500 ≠"
    assert any(note.startswith("≠") for note in table.notes)


@pytest.mark.parametrize("view", ["costs", "comparison"])
@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv", "html"])
def test_every_view_has_every_format(make_run, view: View, form: str):
    runs = [answered(make_run(name, rows=ROWS), lambda task, i: i % 2 == 0) for name in ("lora", "ewc")]
    shown = render(tables(collect(runs), view, baseline="lora"), form)
    assert "ewc" in shown


def forgetting(runs):
    (table,) = tables(collect(runs))
    keys = [column.key for column in table.columns]
    return {row[0].text: dict(zip(keys, row, strict=True)) for section in table.sections for row in section}


def test_a_method_that_learns_nothing_does_not_look_good(make_run):
    """It forgets nothing: the column of what was learnt, and the base's row above it, say why."""
    nothing = finish(make_run("zero-shot", rows=[[20.0, 30.0]] * 3, text=(90.0,) * 3))
    rows = forgetting([nothing, finish(make_run("lora", rows=ROWS, text=(90.0, 88.0, 85.0)))])
    assert rows["zero-shot"]["bwt"].number == 0 and rows["zero-shot"]["text_drop"].number == 0
    assert rows["zero-shot"]["learnt"].number == rows["zero-shot"]["final"].number == 25.0
    assert rows["lora"]["learnt"].number == 75.0


def test_a_method_that_guesses_does_not_look_good(make_run):
    """Its scores are those of chance at every stage; compared with one that learnt, it is lower."""
    guess = answered(
        make_run("ewc", rows=[[25.0, 25.0]] * 3, text=(90.0, 25.0, 25.0)), lambda task, i: i % 8 < 2
    )
    learnt = answered(make_run("lora", rows=ROWS, text=(90.0, 88.0, 85.0)), lambda task, i: i % 8 < 6)
    row = compared([learnt, guess])
    assert row["ewc", "tasks"]["verdict"].text == "lower"
    assert row["ewc", "text"]["verdict"].text == "lower"
    table = forgetting([guess, learnt])["ewc"]
    assert table["bwt"].number == 0 and table["learnt"].number == 25.0
    assert table["text_drop"].number > 50


def test_costs_are_compared_with_the_first_moextend(make_run):
    for method, trained in (("lora", 500), ("moextend:layers=all", 990), ("full-ft", 1000)):
        run = finish(make_run(method, rows=ROWS))
        run.write_cost(1, "colour", {"trained_parameters": trained})
    runs = find_runs(run.folder.parent.parent)
    (table,) = tables(collect(runs), "costs")
    shown = {row[0].text: row[1].text for row in table.sections[0]}
    assert shown == {"full-ft": "1,000", "lora": "500 ≠", "moextend:layers=all": "990"}
    assert "from moextend:layers=all's" in table.notes[-1]
