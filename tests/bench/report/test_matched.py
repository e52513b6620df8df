"""What the forgetting table says of costs that are matched, and of those that are not."""

from pathlib import Path

import pytest

from moextend.bench.methods import parse
from moextend.bench.report import render, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.table import short
from moextend.bench.report.views.costs import MEANING, matched_notes
from moextend.bench.run.estimate import Plan, matched, skeletons
from moextend.bench.run.plan import all_tasks
from moextend.bench.run.records import StageCost
from moextend.bench.sequence import find_sequence
from tests.bench.conftest import MakeRun

TRAINED = {
    "zero-shot": 0, "full-ft": 757_440, "lora": 98_304, "lora:rank=12": 147_456, "moextend:scope=own": 147_844,
}  # fmt: skip


def test_numbers_are_short() -> None:
    shown = {
        0: "0", 0.0123: "0.012", 0.594: "0.59", 3.03: "3.03", 28.14: "28.1", 147_844: "148k", 98_304: "98.3k",
        999_900: "1.00M", 6.9e9: "6.90B",
    }  # fmt: skip
    assert {number: short(number).text for number in shown} == shown


@pytest.mark.parametrize(
    ("methods", "note"),
    [
        (["lora:rank=12", "moextend:scope=own", "zero-shot"],
         "Trained parameters are matched: all are within 10% of moextend:scope=own's 147,844."),
        (["full-ft", "lora", "moextend:scope=own"],
         "≠: trained parameters are not within 10% of moextend:scope=own's 147,844: full-ft, lora (moextend bench run "
         "--match params, for methods that have a size)."),
    ],
)  # fmt: skip
def test_the_table_says_what_is_matched(done: MakeRun, methods: list[str], note: str) -> None:
    runs = [done(method) for method in methods]
    for run in runs:
        count = TRAINED[run.config.method]
        for stage, task in enumerate(run.config.stages, 1):
            run.write_cost(stage, task, StageCost(trained_parameters=count, kept_mb=4e-6 * count, flops=1e12))
    (experiment,) = collect(runs)
    assert matched_notes(experiment) == [MEANING, note]
    page = render(tables([experiment]), "markdown")
    assert note in page and "148k≠" not in page
    assert ("98.3k≠" in page) == ("lora" in methods) and ("757k≠" in page) == ("full-ft" in methods)


def test_runs_without_known_costs_have_no_columns_of_them(done: MakeRun) -> None:
    (experiment,) = collect([done()])
    (table,) = tables([experiment])
    assert matched_notes(experiment) == [] and "TFLOP" not in [one.title for one in table.narrow().columns]


def test_the_default_methods_of_tiny_are_those_that_matching_gives(tmp_path: Path) -> None:
    sequence = find_sequence("tiny", tmp_path)
    plain = [text.replace(",rank=12", "").replace(":rank=12", "") for text in sequence.methods]
    specs = [parse(text, sequence.settings_for(text)) for text in plain]
    plan = Plan(sequence, {}, tmp_path, skeletons(sequence.base, tmp_path))
    found = matched(specs, "params", plan)
    assert [spec.text for spec, _ in found] == sequence.methods
    assert [spec.name for spec, note in found if "NOT matched" in note] == ["full-ft"]


@pytest.mark.parametrize("name", ["tiny", "tiny-long"])
def test_the_default_replay_keeps_as_many_bytes_as_one_layer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "_count", lambda plan, task, split: 24_000)
    sequence = find_sequence(name, tmp_path)
    plan = Plan(sequence, all_tasks(sequence, tmp_path), tmp_path, skeletons(sequence.base, tmp_path))
    replay, one = (
        parse(text, sequence.settings_for(text)) for text in (*sequence.methods[3:4], sequence.methods[-1])
    )
    assert (replay.text, one.text) == (
        "replay:mb=2,text=true,rank=12",
        "moextend:scope=all,layers=0,experts=4",
    )
    assert plan.kept(replay) + 2e6 * len(sequence.stages) == pytest.approx(plan.kept(one), rel=0.05)
