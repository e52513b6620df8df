"""The views of costs and of differences to a baseline, and what no view may make look good."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pytest

from moextend.bench.report import tables
from moextend.bench.report.collect import collect
from moextend.bench.report.table import Value
from moextend.bench.report.views.comparison import default_baseline
from moextend.bench.run.progress import _write
from moextend.bench.run.records import StageCost, Status
from moextend.bench.run.rundir import Cell, RunDir, find_runs
from moextend.bench.score.lines import PredictionLine
from moextend.errors import UnknownName
from moextend.util.files import write_lines
from tests.bench import ledger
from tests.bench.conftest import MakeRun

ALL = ("LA", "ACC", "BWT", "FM", "FWT", "Δ text")
ROWS = [[20.0, 30.0], [80.0, 32.0], [60.0, 70.0]]

Right = Callable[[str, int], bool]
"""Whether an answer is right, by task and number of the item."""


def luckier(more: int, task: str, i: int) -> bool:
    """Right in half of the items, and in `more` of 100 others."""
    return i % 8 < 4 or i % 100 < more


def amount(value: Value) -> float:
    """The number of a cell that has one."""
    assert value.number is not None
    return value.number


def finish(run: RunDir) -> RunDir:
    _write(run.folder, Status(state="done"))
    return run


def answered(run: RunDir, right: Right, items: int = 200, an_image: int = 2) -> RunDir:
    """Gives the run's last row predictions, of which `right(task, item)` says which are right."""

    def keep(task: str, value: float, scorer: str) -> None:
        file = f"predictions/w/{task}.jsonl"
        cell = Cell(stage=2, task=task, value=value, stderr=1.0, n=items, scorer=scorer, predictions=file)
        run.append_cell(cell)

    for task in run.config.stages:
        records = [
            PredictionLine(
                f"{task}{i}", "a" if right(task, i) else "b", ("a",), group=f"image{i // an_image}"
            )
            for i in range(items)
        ]
        path = run.predictions / "w" / f"{task}.jsonl"
        write_lines(path, [asdict(record) for record in records])
        value = 100 * sum(right(task, i) for i in range(items)) / items
        keep(task, value, "exact@1")
    for text in run.config.retention:
        lines = [{"task": text, "id": i, "right": float(right(text, i))} for i in range(items)]
        write_lines(run.predictions / "w" / f"{text}.jsonl", [*lines, {"summary": {}}])
        value = 100 * sum(right(text, i) for i in range(items)) / items
        keep(text, value, "lm-eval:acc")
    return finish(run)


def compared(
    runs: Sequence[RunDir], baseline: str = "lora", **more: Any
) -> dict[tuple[str, str], dict[str, Value]]:
    (experiment,) = collect(runs)
    (table,) = tables([experiment], "comparison", baseline=baseline, **more)
    keys = [column.key for column in table.columns]
    rows = [row for section in table.sections for row in section]
    return {(row[0].text, row[1].text): dict(zip(keys, row, strict=True)) for row in rows}


def both(
    make_run: MakeRun, method: str, right: Right, seeds: Sequence[int] = (0, 1, 2), **more: Any
) -> list[RunDir]:
    return [answered(make_run(method, seed, ROWS, text=(90.0,)), right, **more) for seed in seeds]


def test_a_large_difference_is_found_and_none_is_not(make_run: MakeRun) -> None:
    runs = both(make_run, "lora", lambda task, i: i % 4 == 0)
    runs += both(make_run, "ewc", lambda task, i: i % 4 < (1 if task == "facts" else 3))
    row = compared(runs)["ewc", "ACC"]
    assert row["difference"].number == pytest.approx(50)
    assert (row["verdict"].text, row["verdict"].style) == ("better", "bold")
    assert (row["seeds"].number, row["clusters"].number) == (3, 100), "both tasks ask about the same images"
    assert amount(row["low"]) < 50 < amount(row["high"])


def test_one_seed_gives_no_verdict(make_run: MakeRun) -> None:
    runs = both(make_run, "lora", lambda task, i: i % 4 == 0, seeds=(0,))
    runs += both(make_run, "ewc", lambda task, i: i % 4 < 3, seeds=(0,))
    (experiment,) = collect(runs)
    (table,) = tables([experiment], "comparison", baseline="lora")
    assert not any(value.style == "bold" for section in table.sections for row in section for value in row)
    row = compared(runs)["ewc", "ACC"]
    assert row["verdict"].text == "items only" and amount(row["p"]) < 0.001
    assert any(note.startswith("items only: ") for note in table.notes)


def test_runs_that_differ_as_much_as_methods_are_undecided(make_run: MakeRun) -> None:
    """Over items alone this is significant: 12 points of 400 items."""
    runs = both(make_run, "lora", lambda task, i: i % 8 < 4)
    for seed, more in zip((0, 1, 2), (30, 5, 1), strict=True):
        runs += both(make_run, "ewc", partial(luckier, more), seeds=(seed,))
    row = compared(runs)["ewc", "ACC"]
    assert row["verdict"].text == "undecided" and amount(row["p"]) > 0.05
    assert amount(row["difference"]) / amount(row["item_error"]) > 2
    assert amount(row["resolves"]) > amount(row["difference"])


def test_a_method_that_shares_no_seed_with_the_baseline_is_named(make_run: MakeRun) -> None:
    runs = both(make_run, "lora", lambda task, i: i % 2 == 0, seeds=(0, 1))
    runs += both(make_run, "ewc", lambda task, i: i % 3 == 0, seeds=(2, 3))
    runs += both(make_run, "lwf", lambda task, i: i % 3 == 0, seeds=(0, 1))
    row = compared(runs)["ewc", "ACC"]
    assert (row["difference"].text, row["verdict"].text, row["seeds"].number) == ("-", "no shared seed", 0)
    (table,) = tables(collect(runs), "comparison", baseline="lora")
    assert any(note.startswith("no shared seed: ") for note in table.notes)


def test_what_has_no_predictions_is_shown_and_not_tested(make_run: MakeRun) -> None:
    runs = [finish(make_run(method, 0, ROWS, text=(90.0, 88.0, 85.0))) for method in ("lora", "ewc")]
    row = compared(runs)["ewc", "BWT"]
    assert (row["difference"].text, row["verdict"].text, row["p"].text) == ("0.0", "items not kept", "-")


def test_the_baseline_must_have_run(make_run: MakeRun) -> None:
    with pytest.raises(UnknownName, match="no method 'replay'"):
        compared([answered(make_run("lora", rows=ROWS), lambda task, i: True)], "replay")


def test_the_default_baseline_has_the_default_settings() -> None:
    others = ["ewc", "moextend:routing=paper,scope=all", "moextend:scope=auto"]
    assert default_baseline([*others, "moextend:scope=own,learning_rate=0.01", "moextend:scope=own"]) == (
        "moextend:scope=own"
    )
    assert default_baseline(others) == "moextend:routing=paper,scope=all"
    assert default_baseline(["moextend:scope=own", "moextend"]) == "moextend", "in whatever order"
    assert default_baseline(["ewc"]) == "zero-shot"


@pytest.fixture(scope="module")
def ledger_runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunDir]:
    """Three methods, four seeds, three tasks and a text task; the second is the first with other luck."""
    kinds = {
        "lora": ledger.Kind(run_sd=0.01),
        "ewc": ledger.Kind(run_sd=0.01),
        "moextend:scope=auto": ledger.Kind(learned=0.9, keeps=1.0, future=-0.25, text_lost=0.0, run_sd=0.01),
    }
    shape = ledger.Shape(items=300)
    return ledger.write_runs(tmp_path_factory.mktemp("ledger"), shape, kinds, (2, 3, 4, 5))


def test_every_column_is_tested(ledger_runs: list[RunDir]) -> None:
    rows = compared(ledger_runs)
    better = {metric: rows["moextend:scope=auto", metric]["verdict"].text for metric in ALL}
    assert better == {
        "LA": "better", "ACC": "better", "BWT": "better", "FM": "better", "FWT": "worse", "Δ text": "better",
    }  # fmt: skip
    assert {rows["ewc", metric]["verdict"].text for metric in ALL} <= {"undecided", "equivalent"}
    for metric in ALL:
        row = rows["moextend:scope=auto", metric]
        assert amount(row["low"]) < amount(row["difference"]) < amount(row["high"])
        assert amount(row["tests"]) == 2 and 0 < amount(row["resolves"]) < 30


def test_differences_are_those_of_the_forgetting_table(ledger_runs: list[RunDir]) -> None:
    table = forgetting(ledger_runs)
    rows = compared(ledger_runs)
    names = dict(zip(ALL, ("la", "acc", "bwt", "fm", "fwt", "text_change"), strict=True))
    for metric, key in names.items():
        expected = amount(table["ewc"][key]) - amount(table["lora"][key])
        assert rows["ewc", metric]["difference"].number == pytest.approx(expected)


def test_costs_that_are_not_matched_are_marked(make_run: MakeRun) -> None:
    runs = []
    for method, trained in (("full-ft", 1000), ("lora", 990), ("ewc", 500)):
        run = finish(make_run(method, rows=ROWS))
        run.write_facts(task_identity="none", base_flops={"colour": 100.0, "count": 100.0})
        for stage, task in enumerate(run.config.stages, 1):
            cost = StageCost(
                trained_parameters=trained, tokens=50 * stage, flops=2e12, kept_mb=0.5 * stage,
                forward_flops=110.0 + stage, seconds=3.0, peak_rss_mb=9.0,
            )  # fmt: skip
            run.write_cost(stage, task, cost)
        runs.append(run)
    (table,) = tables(collect(runs), "costs")
    shown = [[value.text for value in row] for row in table.sections[0]]
    assert shown[0][:5] == ["full-ft", "1,000", "1.00", "150", "4.00"]
    assert shown[0][5] in ("1.11x", "1.12x") and shown[0][6:] == ["6", "9", "-"]
    assert shown[1][1] == "990" and shown[2][1] == "500 ≠"
    assert any(note.startswith("≠") for note in table.notes)


def forgetting(runs: Sequence[RunDir]) -> dict[str, dict[str, Value]]:
    (table,) = tables(collect(runs))
    keys = [column.key for column in table.columns]
    return {row[0].text: dict(zip(keys, row, strict=True)) for section in table.sections for row in section}


def test_a_stage_that_another_run_trained_is_named_with_its_costs(make_run: MakeRun) -> None:
    for method, by in (("moextend:scope=own", None), ("moextend:scope=auto", "mini/moextend+scope-own-s0")):
        run = finish(make_run(method, rows=ROWS))
        run.write_cost(1, "colour", StageCost(seconds=5.0, trained_by=by))
        run.write_cost(2, "count", StageCost(seconds=7.0 if by is None else 3600.0))
    (table,) = tables(collect(find_runs(run.folder.parent.parent)), "costs")
    assert [row[6].text for row in table.sections[0]] == ["3605", "12"], (
        "what the training took, in both rows"
    )
    assert table.notes[-2].startswith(
        "1 of 4 stages were trained by another run with the same past and settings"
    )
    assert table.notes[-1].startswith("In all, 2 runs: 1.0 h of learning,"), "3,612 seconds"
