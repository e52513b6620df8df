"""Records of routing, and their view."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from moextend import Conversation, MultimodalLM, Prompt
from moextend.bench.report import tables
from moextend.bench.report.collect import collect
from moextend.bench.run import diagnostics
from moextend.bench.run.diagnostics import Diagnostics, drift
from moextend.bench.run.records import RoutingReport
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.stage import StageData
from moextend.extension import task_inference
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


def test_false_rejections_are_counted_on_inputs_that_the_statistics_lack(
    model: MultimodalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(name: str, count: int) -> list[Conversation]:
        return [Conversation(((f"w1 {name} w{i}", "w2"),)) for i in range(count)]

    known = {name: StageData(rows(name, 30), rows(f"w50 {name}", 4)) for name in ("one", "two")}
    monkeypatch.setattr(diagnostics, "learning_data", lambda context, names, seed: known[names[0]])
    monkeypatch.setattr(task_inference, "INPUTS", 14)
    used = [prompt.text for prompt in task_inference.inputs_of(known["one"].held_out, known["one"].learn)]
    model.choose = task_inference.TaskInference(
        model, {"one": task_inference.collect(model, [Prompt(text) for text in used])}
    )
    asked: list[list[str]] = []

    def shares(self: object, prompts: Sequence[Prompt]) -> dict[str, float]:
        asked.append([prompt.text for prompt in prompts])
        return {"": 0.0, "one": 1.0}

    monkeypatch.setattr(task_inference.TaskInference, "shares", shares)
    run: Any = SimpleNamespace(
        generic=[], config=SimpleNamespace(mode="sequence", stages=["one", "two"], seed=0),
        method=SimpleNamespace(select=lambda *unused: ""),
    )  # fmt: skip
    found = Diagnostics(run, model)._inferred(model, ["one"])
    assert found is not None and found.tasks["one"].inputs == 20 and found.tasks["two"].inputs == 30
    assert len(asked[0]) == 20 and not set(asked[0]) & set(used)
