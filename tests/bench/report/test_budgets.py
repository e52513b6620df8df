"""Cost to equal quality, of runs whose curves are known."""

from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report import tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.run.opening import open_run
from moextend.bench.run.records import AlignmentCost, StageCost, Status
from moextend.bench.run.rundir import RunDir
from moextend.errors import UnknownName
from tests.bench.conftest import config, fill

ALIGNED = AlignmentCost(task="captions", steps=300, flops=1e12, seconds=10)


@pytest.fixture
def curves(tmp_path: Path) -> Any:
    """Runs of a method at several numbers of steps: learning accuracy -> operations and seconds of a stage."""

    def make(
        method: str, scores: dict[int, float], flops: float, seed: int = 0, probe: float = 0
    ) -> list[RunDir]:
        made = []
        for steps, la in scores.items():
            sequence = config().sequence
            sequence = {**sequence, "train": {**sequence["train"], "steps": steps}}
            run = open_run(config(method, seed, sequence=sequence), tmp_path / str(steps))
            fill(run, [[0.0, 0.0], [la, 0.0], [0.0, la]])
            Status(state="done").write(run.folder / "status.json")
            for stage, task in enumerate(run.config.stages, 1):
                cost = StageCost(flops=steps * flops, probe_flops=probe or None, change=[1.0] if probe else None,
                                 seconds=float(steps), alignments={"image": ALIGNED} if stage == 1 else {})  # fmt: skip
                run.write_cost(stage, task, cost)
            made.append(run)
        return made

    return make


def rows(experiments: list[Experiment], **asked: Any) -> dict[str, dict[str, str]]:
    (table,) = tables(experiments, "budgets", **asked)
    keys = [column.key for column in table.columns]
    return {
        row[0].of: dict(zip(keys, (value.text for value in row), strict=True)) for row in table.sections[0]
    }


def test_the_cost_of_a_run_counts_alignment_probe_and_all_stages(curves: Any) -> None:
    runs = curves("full-ft", {10: 40.0, 20: 60.0}, 1e11)
    runs += curves("moextend", {10: 30.0, 20: 50.0}, 0.5e11, probe=0.25e12)
    found = rows(collect(runs))
    # full-ft reaches 50 halfway: 15 steps in each of two stages, 2 x 15 x 0.1 + 1 of the alignment
    assert [found["full-ft"][key] for key in ("steps", "flops", "flops_ratio", "seconds")] == [
        "15",
        "4.00",
        "1.00x",
        "40.0",
    ]
    assert [found["moextend"][key] for key in ("steps", "flops", "flops_ratio", "seconds")] == [
        "20",
        "3.50",
        "0.88x",
        "50.0",
    ]
    (table,) = tables(collect(runs), "budgets")
    assert "The alignment, the same for all methods, is 1.00 TFLOP of each cost." in table.notes
    assert found["moextend"]["best"] == "50.0" and "flops_interval" not in found["moextend"]


def test_what_is_not_reached_has_no_cost(curves: Any) -> None:
    runs = [*curves("full-ft", {10: 40.0, 20: 60.0}, 1e11), *curves("lora", {10: 30.0, 20: 50.0}, 1e11)]
    experiments = collect(runs)
    found = rows(experiments, accuracy=55.0)
    assert (found["lora"]["steps"], found["lora"]["flops"]) == ("not reached", "-")
    early = rows(experiments, accuracy=40.0)
    assert early["full-ft"]["flops"] == "≤ 3.00", "fewer steps might do"
    assert (early["full-ft"]["flops_ratio"], early["lora"]["flops_ratio"]) == ("1.00x", "≥ 1.33x")
    (table,) = tables(experiments, "budgets", accuracy=55.0)
    assert table.title == "mini: cost to an accuracy of 55.0" and "Steps: 10, 20. Seeds: 0." in table.notes
    with pytest.raises(UnknownName, match="no method 'ewc'"):
        tables(experiments, "budgets", baseline="ewc")


def test_several_seeds_give_an_interval_of_paired_multiples(curves: Any) -> None:
    runs = []
    for seed, la in enumerate((50.0, 60.0, 55.0)):
        runs += curves("full-ft", {10: 40.0, 20: 80.0}, 1e11, seed)
        runs += curves("lora", {10: 40.0, 20: la}, 1e11, seed)
    found = rows(collect(runs))["lora"]
    assert found["seeds"] == "3" and found["best"] == "55.0 ±5.0"
    low, high = map(float, found["flops_interval"].split(" to "))
    assert low < float(found["flops_ratio"][:-1]) < high
    assert not any("NOT COMPARABLE" in note for note in tables(collect(runs), "budgets")[0].notes)
    some = tables(collect(runs[:-1]), "budgets")[0].notes
    assert "NOT COMPARABLE: not every seed has every number of steps: lora." in some
    missed = rows(collect(runs), accuracy=58.0)["lora"]
    assert missed["steps"] == "1 of 3 seeds" and missed["flops"] == "-"
