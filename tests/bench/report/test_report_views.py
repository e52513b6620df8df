"""The views of costs and of differences to a baseline, and what no view may make look good."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial

import pytest

from moextend.bench import stats
from moextend.bench.report import How, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.table import Table, Value, text
from moextend.bench.report.views import comparison
from moextend.bench.report.views.comparison import default_baseline
from moextend.bench.run.records import StageCost
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.bench.score.lines import PredictionLine
from moextend.errors import UnknownName
from moextend.util.files import write_lines
from tests.bench import ledger
from tests.bench.cells import cell_of
from tests.bench.conftest import MakeRun
from tests.bench.report.conftest import ROWS

METRICS = {"LA": "la", "ACC": "acc", "BWT": "bwt", "FWT": "fwt", "Δ text": "text_change"}
Right = Callable[[str, int], bool]
"""Whether an answer is right, by task and number of the item."""
Rows = dict[tuple[str, str], dict[str, Value]]


def luckier(more: int, task: str, i: int) -> bool:
    """Right in half of the items, and in `more` of 100 others."""
    return i % 8 < 4 or i % 100 < more


def amount(value: Value) -> float:
    """The number of a cell that has one."""
    assert value.number is not None
    return value.number


def answered(run: RunDir, right: Right, items: int = 200) -> RunDir:
    """Gives the run's last row predictions, of which `right(task, item)` says which are right; two ask of an image."""
    for task in (*run.config.stages, *run.config.retention):
        file, is_text = f"predictions/w/{task}.jsonl", task in run.config.retention
        marks = [right(task, i) for i in range(items)]
        if is_text:
            lines = [{"task": task, "id": i, "right": float(mark)} for i, mark in enumerate(marks)]
            write_lines(run.folder / file, [*lines, {"summary": {}}])
        else:
            records = (
                PredictionLine(f"{task}{i}", "a" if mark else "b", ("a",), group=f"image{i // 2}")
                for i, mark in enumerate(marks)
            )
            write_lines(run.folder / file, [asdict(record) for record in records])
        run.append_cell(
            cell_of(
                2, task, 100 * sum(marks) / items, stderr=1.0, n=items, folder=run.folder,
                scorer="lm-eval:acc" if is_text else "exact@1", predictions=file,
            )
        )  # fmt: skip
    return run


def compared(runs: Sequence[RunDir], baseline: str = "lora") -> tuple[Rows, list[str]]:
    """The rows of the comparison by method and metric, and its notes."""
    (table,) = tables(collect(runs), "comparison", How(baseline))
    return {(row["method"].text, row["metric"].text): row for row in table.records}, table.notes


def several(done: MakeRun, method: str, right: Right, seeds: Sequence[int] = (0, 1, 2)) -> list[RunDir]:
    return [answered(done(method, seed, ROWS, text=(90.0,)), right) for seed in seeds]


def test_a_large_difference_is_found_and_none_is_not(done: MakeRun) -> None:
    runs = several(done, "lora", lambda task, i: i % 4 == 0)
    runs += several(done, "ewc", lambda task, i: i % 4 < (1 if task == "facts" else 3))
    row = compared(runs)[0]["ewc", "ACC"]
    assert row["difference"].number == pytest.approx(50)
    assert (row["verdict"].text, row["verdict"].style) == ("better", "bold")
    assert (row["seeds"].number, row["clusters"].number) == (3, 100), "both tasks ask about the same images"
    assert amount(row["low"]) < 50 < amount(row["high"])
    rows, notes = compared([run for run in runs if run.config.seed == 0])
    assert not any(value.style == "bold" for row in rows.values() for value in row.values())
    row = rows["ewc", "ACC"]
    assert row["verdict"].text == "items only" and amount(row["p"]) < 0.001, "one seed gives no verdict"
    assert any(note.startswith("items only: ") for note in notes)
    with pytest.raises(UnknownName, match="no method 'replay'"):
        compared(runs, "replay")


def test_runs_that_differ_as_much_as_methods_are_undecided(done: MakeRun) -> None:
    """Over items alone this is significant: 12 points of 400 items."""
    runs = several(done, "lora", lambda task, i: i % 8 < 4)
    for seed, more in zip((0, 1, 2), (30, 17, 5), strict=True):
        runs += several(done, "ewc", partial(luckier, more), seeds=(seed,))
    row = compared(runs)[0]["ewc", "ACC"]
    assert row["verdict"].text == "undecided" and amount(row["p"]) > 0.05
    assert amount(row["difference"]) / amount(row["item_error"]) > 2
    assert amount(row["resolves"]) > amount(row["difference"])


def test_a_run_far_from_the_others_is_called_a_collapse(done: MakeRun) -> None:
    runs = several(done, "lora", lambda task, i: i % 8 < 4)
    for seed, more in zip((0, 1, 2), (30, 28, 1), strict=True):
        runs += several(done, "ewc", partial(luckier, more), seeds=(seed,))
    rows, notes = compared(runs)
    assert rows["ewc", "ACC"]["verdict"].text == "collapse"
    assert any("up to 63% of further runs may collapse" in note for note in notes)


def test_what_cannot_be_compared_is_named(done: MakeRun) -> None:
    runs = several(done, "lora", lambda task, i: i % 2 == 0, seeds=(0, 1))
    runs += several(done, "ewc", lambda task, i: i % 3 == 0, seeds=(2, 3))
    runs += [done("lwf", 0)]
    rows, notes = compared(runs)
    row = rows["ewc", "ACC"]
    assert (row["difference"].text, row["verdict"].text, row["seeds"].number) == ("-", "no shared seed", 0)
    assert any(note.startswith("no shared seed: ") for note in notes)
    row = rows["lwf", "ACC"]
    assert (row["verdict"].text, row["p"].text) == ("items not kept", "-") and row[
        "difference"
    ].number is not None


def test_the_default_baseline_has_the_default_settings() -> None:
    others = ["ewc", "moextend:routing=paper,scope=all", "moextend:scope=auto"]
    own = [*others, "moextend:scope=own,learning_rate=0.01", "moextend:scope=own"]
    assert default_baseline(own) == "moextend:scope=own"
    assert default_baseline(others) == "moextend:routing=paper,scope=all"
    assert default_baseline(["moextend:scope=own", "moextend"]) == "moextend", "in whatever order"
    assert default_baseline(["ewc"]) == "zero-shot"


def test_every_column_of_the_forgetting_table_but_fm_is_tested(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Three methods, four seeds; the second is the first with other luck."""
    kinds = {
        "lora": ledger.Kind(run_sd=0.01),
        "ewc": ledger.Kind(run_sd=0.01),
        "moextend:scope=auto": ledger.Kind(learned=0.9, keeps=1.0, future=-0.25, text_lost=0.0, run_sd=0.01),
    }
    runs = ledger.write_runs(tmp_path_factory.mktemp("l"), ledger.Shape(items=300), kinds, (2, 3, 4, 5))
    rows, _ = compared(runs)
    fm = rows["moextend:scope=auto", "FM"]
    assert amount(fm["difference"]) < -5 and (fm["verdict"].text, fm["p"].text) == ("no test", "-")
    better = {metric: rows["moextend:scope=auto", metric]["verdict"].text for metric in METRICS}
    assert better == {**dict.fromkeys(METRICS, "better"), "FWT": "worse"}
    assert {rows["ewc", metric]["verdict"].text for metric in METRICS} <= {"undecided", "equivalent"}
    table = {row["method"].text: row for row in tables(collect(runs))[0].records}
    for metric, key in METRICS.items():
        expected = amount(table["ewc"][key]) - amount(table["lora"][key])
        assert rows["ewc", metric]["difference"].number == pytest.approx(expected)
        row = rows["moextend:scope=auto", metric]
        assert amount(row["low"]) < amount(row["difference"]) < amount(row["high"])
        assert amount(row["tests"]) == 2 and 0 < amount(row["resolves"]) < 30


def test_costs_that_are_not_matched_are_marked(done: MakeRun) -> None:
    runs = []
    for method, trained in (("full-ft", 1000), ("lora", 990), ("ewc", 500)):
        run = done(method, facts={"task_identity": "none", "base_flops": {"colour": 100.0, "count": 100.0}})
        for stage, task in enumerate(run.config.stages, 1):
            cost = StageCost(
                trained_parameters=trained, tokens=50 * stage, flops=2e12, kept_mb=0.5 * stage,
                forward_flops=110.0 + stage, seconds=3.0, peak_rss_mb=9.0,
            )  # fmt: skip
            run.write_cost(stage, task, cost)
        runs.append(run)
    (table,) = tables(collect(runs), "costs")
    shown = [[value.text for value in row] for row in table.rows]
    assert shown[0][:5] == ["full-ft", "1,000", "1.00", "150", "4.00"]
    assert shown[0][5] == "1.12x" and shown[0][6:] == ["6", "9", "-"]
    assert shown[1][1] == "990" and shown[2][1] == "500 ≠"
    assert any(note.startswith("≠") for note in table.notes)


def test_a_stage_that_another_run_trained_is_named_with_its_costs(done: MakeRun) -> None:
    for method, by in (("moextend:scope=own", None), ("moextend:scope=auto", "mini/moextend+scope-own-s0")):
        run = done(method)
        run.write_cost(1, "colour", StageCost(seconds=5.0, trained_by=by))
        run.write_cost(2, "count", StageCost(seconds=7.0 if by is None else 3600.0))
    (table,) = tables(collect(find_runs(run.folder.parent.parent)), "costs")
    assert [row[6].text for row in table.rows] == ["3605", "12"], "what the training took, in both rows"
    assert table.notes[-2].startswith(
        "1 of 4 stages were trained by another run with the same past and settings"
    )
    assert table.notes[-1].startswith("In all, 2 runs: 1.0 h of learning,"), "3,612 seconds"


def test_rows_without_a_verdict_are_a_family_of_their_own() -> None:
    def row(name: str, seeds: int) -> comparison.Test:
        values = [2.0 + 0.1 * seed for seed in range(seeds)]
        found = stats.Contrast(2.0, 0.2, 0.1, seeds, clusters=90, changed=30)
        return comparison.Test(text(name), values, found if seeds > 1 else replace(found, seed_variance=0.0))

    several, two, one = row("a", 3), row("b", 3), row("c", 1)
    rows = comparison.section([several, two, one], "acc", 1.0)
    records = Table("", "", comparison.COLUMNS, [rows]).records
    p, tests = ([amount(record[key]) for record in records] for key in ("p", "tests"))
    assert tests == [2, 2, 1]
    assert p[:2] == stats.holm([several.found.p, two.found.p]) and p[2] == one.found.p  # type: ignore[union-attr]
