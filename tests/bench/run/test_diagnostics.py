"""Records of routing, and their view."""

import math
from typing import Any

import pytest

from moextend.bench.report import tables
from moextend.bench.report.collect import collect
from moextend.bench.run.diagnostics import drift
from moextend.bench.run.records import RoutingReport
from moextend.bench.run.rundir import RunDir
from tests.bench.conftest import MakeRun

ROWS = [[20.0, 30.0], [80.0, 32.0], [60.0, 70.0]]


def keep(run: RunDir, stage: int, task: str, report: dict[str, Any]) -> None:
    """Writes the routing after a stage as the run does."""
    folder = run.stage_folder(stage, task)
    RoutingReport.parse({**report, "run": run.id}, where="").write(folder / "routing.json")


def test_drift_is_zero_for_equal_choices_and_worked_out_by_hand_for_others() -> None:
    then = [{"": [10, 30]}, {"": [7, 7]}]
    assert drift(then, then) == [0, 0]
    now = [{"": [30, 10]}, {"": [7, 7], "new": [13]}]
    p, q = [10.5 / 41, 30.5 / 41], [30.5 / 41, 10.5 / 41]
    first = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    p, q = [7.5 / 15.5, 7.5 / 15.5, 0.5 / 15.5], [7.5 / 28.5, 7.5 / 28.5, 13.5 / 28.5]
    second = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert drift(then, now) == pytest.approx([first, second])


@pytest.fixture
def run(make_run: MakeRun) -> RunDir:
    run = make_run("moextend:scope=all", rows=ROWS)
    looked_at = {"tokens": 10, "experts": [{}, {}, {}]}
    first = {**looked_at, "reached": [{"colour": 0.8}, {}, {"colour": 0.6}]}
    then = {
        **looked_at,
        "reached": [{"colour": 0.4, "count": 0.5}, {"count": 0.1}, {"colour": 0.4}],
        "drift": [0.01, 0.03, 0.02],
    }
    learned = {**looked_at, "reached": [{"colour": 0.0, "count": 1.0}, {"count": 0.5}, {}]}
    keep(
        run,
        1,
        "colour",
        {"layers": [0, 2], "change": [0.05, 0.01, 0.04], "tasks": {"colour": first}},
    )
    keep(
        run,
        2,
        "count",
        {
            "layers": [0, 1],
            "tasks": {"colour": then, "count": learned},
            "oracle": {"colour": 75.0, "count": None},
        },
    )
    return run


def test_the_view_shows_reached_extensions_and_drift(run: RunDir) -> None:
    (table,) = tables(collect([run], unfinished=True), "routing")
    assert [column.title for column in table.columns][2:] == [
        "colour",
        "count",
        "KL",
        "most",
        "final",
        "oracle",
    ]
    assert [[[value.text for value in row] for row in section] for section in table.sections] == [
        [["1", "colour", "70.0", "0.0", "-", "-", "80.0", "-"]],
        [
            ["2", "colour", "40.0", "30.0", "20.0", "30.0", "60.0", "75.0"],
            ["2", "count", "0.0", "75.0", "-", "-", "70.0", "-"],
        ],
    ]
    layers = "Stage 1: new experts in layers 0, 2; d_j of layers 0 to 2: 0.050, 0.010, 0.040."
    assert layers in table.notes and "Stage 2: new experts in layers 0, 1." in table.notes
