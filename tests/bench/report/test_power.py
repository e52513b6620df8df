"""The plan of seeds, orders and items, and the size and power of the report's own tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from moextend.bench import stats
from moextend.bench.report import comparison, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.comparison import COLUMNS, Measure, comparison_table, differences, section
from moextend.bench.report.items import Parts
from moextend.bench.report.power import Plan, Planned, Wanted, plan, plan_gate
from moextend.bench.report.power_forms import power_tables
from moextend.bench.report.table import text
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.bench.stats import planning
from moextend.cli.main import app
from moextend.errors import InputError, UnknownName
from tests.bench.ledger import Kind, Shape, write_run

SHAPE = Shape(stages=2, texts=1, items=150, an_image=1, shared_images=False)
ORDERS, SEEDS = ("given", "reverse"), (0, 1, 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("power")
    for method, kind in {"lora": Kind(run_sd=0.03, keeps=0.3), "ewc": Kind(run_sd=0.03, keeps=0.8)}.items():
        for order in ORDERS:
            for seed in SEEDS:
                write_run(folder, SHAPE, method, seed, kind, order=order)
    return folder


def planned(folder: Path, *names: str, wanted: Wanted | None = None, metric: str = "ACC") -> Planned:
    (found,) = collect(find_runs(folder, list(names)))
    return plan(found, wanted or Wanted(), baseline="lora", names=[metric])


def only(found: Planned) -> Plan:
    (one,) = found.plans
    return one


def test_the_plan_of_the_pilots_own_design_is_the_test_of_the_report(runs: Path) -> None:
    """Same MDD as the report prints: with one order of its table, with several of the mean over orders.

    A larger one where the seeds vary less than the items of single runs explain.
    """
    equal = 0
    given = [f"ledger/{method}-s{seed}" for method in ("lora", "ewc") for seed in SEEDS]
    (one,), (several,) = collect(find_runs(runs, given)), collect(find_runs(runs, []))
    for experiment, place, orders in ((one, 0, 1), (several, 1, 2)):
        table = tables([experiment], "comparison", baseline="lora")[place]
        keys = [column.key for column in table.columns]
        rows = [dict(zip(keys, row, strict=True)) for section in table.sections for row in section]
        for metric in ("ACC", "BWT"):
            (row,) = [row for row in rows if row["metric"].text == metric]
            found = only(
                plan(experiment, Wanted(seeds=[3], orders=[orders]), baseline="lora", names=[metric])
            )
            assert found.difference == pytest.approx(row["difference"].number)
            assert row["resolves"].number is not None
            if found.pilot.seed > 0:
                equal += 1
                assert found.rows[0].mdd == pytest.approx(row["resolves"].number, rel=1e-3)
            else:
                assert found.rows[0].mdd > row["resolves"].number
    assert equal >= 2


def test_more_of_anything_never_lowers_the_power(runs: Path) -> None:
    found = only(planned(runs, wanted=Wanted(effect=8)))
    by_design = {(row.orders, row.seeds): row for row in found.rows}
    assert set(by_design) == {(o, s) for o in (1, 2) for s in (2, 3, 5, 10, 20)}
    for orders, seeds in by_design:
        row = by_design[orders, seeds]
        assert row.low <= row.power <= row.high
        assert row.power <= by_design[2, seeds].power + 1e-9 and row.power <= by_design[orders, 20].power
    many = only(planned(runs, wanted=Wanted(effect=8, items=1500)))
    assert all(a.power < b.power for a, b in zip(found.rows, many.rows, strict=True))
    needed = found.rows[-1].items_needed
    assert needed is not None
    enough = only(planned(runs, wanted=Wanted(effect=8, items=needed, seeds=[20], orders=[2])))
    assert enough.rows[0].power == pytest.approx(0.8, abs=0.02)


def test_one_seed_gets_what_its_items_can_show_and_a_gate_of_one_seed_is_planned(runs: Path) -> None:
    alone = only(planned(runs, "ledger/lora-s0", "ledger/ewc-s0"))
    assert alone.rows == [] and alone.items_only is not None and alone.items_only > 5
    (found,) = collect(find_runs(runs, ["ledger/lora-s0"]))
    gates = plan_gate(found, Wanted(effect=0.0), 5.0).plans
    assert [(one.what, one.rows[0].seeds) for one in gates] == [("task1", 1), ("text1", 1)]
    from moextend.bench.report.gate import gate

    needed = {check.task: check.items_needed for check in gate(found, margin=5.0).checks if check.stage == 2}
    assert {one.what: one.rows[0].items_needed for one in gates} == needed


def test_the_family_is_that_of_the_report_also_where_some_methods_are_planned(runs: Path) -> None:
    (found,) = collect(find_runs(runs, []))
    other = [
        replace(one, config=one.config.model_copy(update={"method": "lwf"})) for one in found.of("sequence")
    ]
    found.results += [
        one for one, own in zip(other, found.of("sequence"), strict=True) if own.config.method == "ewc"
    ]
    every, some = (
        plan(found, Wanted(), baseline="lora", names=["ACC"], methods=names).plans for names in ([], ["ewc"])
    )
    assert [one.tests for one in every] == [2, 2] and [one.tests for one in some] == [2]
    assert some[0].rows == every[0].rows
    (alone,) = plan(found, Wanted(tests=1), baseline="lora", names=["ACC"], methods=["ewc"]).plans
    assert alone.rows[0].power > some[0].rows[0].power


def test_a_pilot_with_most_seeds_in_one_order_is_planned_from_it(runs: Path) -> None:
    names = [f"ledger/{method}-s{seed}" for method in ("lora", "ewc") for seed in SEEDS]
    (one,) = collect(find_runs(runs, names))
    (all_orders,) = collect(find_runs(runs, []))
    other = [run for run in all_orders.results if run.config.order != "given" and run.config.seed == SEEDS[0]]
    expected = plan(one, Wanted(), baseline="lora", names=["ACC"])
    one.results += other
    found = plan(one, Wanted(), baseline="lora", names=["ACC"])
    assert only(found).rows == only(expected).rows != []
    assert (expected.one_order, found.one_order) == ([], ["ACC of ewc"])
    assert any(
        note.startswith("Planned from the order with most seeds") for note in power_tables(found)[0].notes
    )


def test_what_cannot_be_planned_is_refused_in_one_line(runs: Path, tmp_path: Path) -> None:
    (found,) = collect(find_runs(runs, []))
    with pytest.raises(UnknownName, match="Did you mean 'lora'"):
        plan(found, Wanted(), baseline="lor")
    with pytest.raises(UnknownName, match="no method"):
        plan(found, Wanted(), methods=["lwf"])
    write_run(tmp_path, SHAPE, "lora", 0, Kind())
    write_run(tmp_path, SHAPE, "ewc", 1, Kind())
    with pytest.raises(InputError, match="ACC of ewc: no shared seed"):
        planned(tmp_path)


def test_a_pack_without_answers_plans_the_same_and_without_item_scores_names_the_reason(
    runs: Path, tmp_path: Path
) -> None:
    packed, other = tmp_path / "runs.tar.zst", tmp_path / "other"
    invoke = CliRunner().invoke
    invoke(app, ["bench", "pack", str(runs), "--no-predictions", "--out", str(packed)])
    invoke(app, ["bench", "unpack", str(packed), "--out", str(other)])
    (full,), (found,) = collect(find_runs(runs, [])), collect(find_runs(other, []))
    packed_rows, rows = (
        [row.mdd for one in plan(each, Wanted()).plans for row in one.rows] for each in (found, full)
    )
    assert packed_rows == pytest.approx(rows)
    for path in other.rglob("items.json"):
        path.unlink()
    (found,) = collect(find_runs(other, []))
    with pytest.raises(InputError, match="is from a pack without predictions"):
        plan(found, Wanted())
    with pytest.raises(InputError, match=r"lora-s\d.*is from a pack without predictions"):
        plan(found, Wanted(), methods=["lora"])
    with pytest.raises(InputError, match=r"lora-s\d.*is from a pack without predictions"):
        plan_gate(found, Wanted(), 2.0, methods=["lora"])


def command(runs: Path, *words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["bench", "power", str(runs), *words])
    return found.exit_code, found.stdout


def test_the_command_prints_tables_and_json(runs: Path) -> None:
    code, out = command(runs, "--baseline", "lora", "--effect", "5", "--seeds", "3,5")
    assert code == 0 and "variance components" in out and "find 5 points with 80% power" in out
    code, out = command(runs, "--baseline", "lora", "--json")
    (record,) = json.loads(out)
    assert code == 0 and {one["what"] for one in record["plans"]} == {"ACC", "BWT"}
    assert record["alpha"] == 0.05
    assert {"seed", "order", "rest", "item", "own_items"} <= record["plans"][0]["pilot"].keys()
    code, out = command(runs, "--margin", "3", "--method", "ewc")
    assert code == 0 and "exclude a loss of 3 points" in out and "lora" not in out


EXPERIMENTS = 500
TASKS, ITEMS = 3, 60


def _runs(rng: Any, seeds: int, points: float) -> list[dict[str, Measure]]:
    """ACC and BWT of the runs of a method, which is better by so many points, with what its items add.

    Half of the answers are the same in all runs of the method, and 70% of the final ones are those of the task's own
    stage, of which ten points are lost.
    """
    shared = rng.random((TASKS, ITEMS))
    found = []
    for _ in range(seeds):
        level = 0.6 + points / 100 + 0.03 * rng.standard_normal()
        own = np.where(rng.random((TASKS, ITEMS)) < 0.5, shared, rng.random((TASKS, ITEMS)))
        last = np.where(rng.random((TASKS, ITEMS)) < 0.7, own, rng.random((TASKS, ITEMS)))
        learned, final = own < level, last < level - 0.1
        lost = (final.astype(float) - learned)[:-1]
        found.append({"ACC": _measure(final), "BWT": _measure(lost)})
    return found


def _measure(scores: Any) -> Measure:
    """The mean over tasks of the mean over their items; every item is a cluster."""
    tasks = len(scores)
    sums = 100 * scores / scores.size
    parts = (sums.ravel(), (sums - sums.mean(1, keepdims=True)).ravel(), np.ones(scores.size, bool))
    floor = tasks * stats.unseen(100 / tasks, ITEMS)
    return float(100 * scores.mean()), Parts(*parts, floor)


def _printed(metric: str, experiments: int, seeds: int, points: float = 0.0) -> list[dict[str, Any]]:
    """Rows of `bench report --baseline` about two methods, in experiments that are drawn again."""
    rng, rows = np.random.default_rng(5), []
    for _ in range(experiments):
        pairs = zip(_runs(rng, seeds, points), _runs(rng, seeds, 0.0), strict=True)
        found = differences([(mine[metric], theirs[metric]) for mine, theirs in pairs])
        assert found is not None
        (row,) = section([comparison.Test(text("m"), *found)], metric, 1.0)
        rows.append({column.key: value.number for column, value in zip(COLUMNS, row, strict=True)})
    return rows


@pytest.mark.parametrize("metric", ["ACC", "BWT"])
def test_the_printed_p_rejects_a_true_null_hypothesis_in_3_to_7_percent(metric: str) -> None:
    rows = _printed(metric, EXPERIMENTS, 3)
    assert 0.03 <= np.mean([row["p"] < 0.05 for row in rows]) <= 0.07
    assert 0.93 <= np.mean([row["low"] <= 0 <= row["high"] for row in rows]) <= 0.97


def test_a_difference_that_is_planned_from_a_large_pilot_is_printed_in_75_to_85_percent() -> None:
    rng = np.random.default_rng(6)
    pairs = zip(_runs(rng, 200, 0.0), _runs(rng, 200, 0.0), strict=True)
    found = differences([(mine["ACC"], theirs["ACC"]) for mine, theirs in pairs])
    assert found is not None and found[1] is not None
    effect = planning.detectable(planning.pilot_of(found[1]), planning.Design(5), stats.LEVEL)
    rows = _printed("ACC", EXPERIMENTS, 5, effect)
    assert 0.75 <= np.mean([row["p"] < 0.05 for row in rows]) <= 0.85


SMALL = Shape(stages=3, texts=0, items=60, an_image=1, shared_images=False)


def _repeated(
    first: Kind, second: Kind, seeds: int, experiments: int
) -> Iterator[dict[tuple[str, str], float]]:
    """(metric, column) -> value of `bench report --baseline`, in experiments with new seeds."""
    for number in range(experiments):
        with TemporaryDirectory() as folder:
            for seed in range(number * seeds, (number + 1) * seeds):
                write_run(Path(folder), SMALL, "lora", seed, first)
                write_run(Path(folder), SMALL, "ewc", seed, second)
            (found,) = collect(find_runs(Path(folder), []))
            table = comparison_table(found, "lora")
        keys = [column.key for column in table.columns]
        rows = [dict(zip(keys, row, strict=True)) for section in table.sections for row in section]
        yield {
            (row["metric"].text, key): row[key].number or 0.0 for row in rows for key in ("p", "low", "high")
        }


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of runs are written: none asks for the versions of packages."""
    monkeypatch.setattr(RunDir, "record_environment", lambda self, **more: None)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_report_rejects_true_null_hypotheses_in_3_to_7_percent(no_environment: None) -> None:
    """500 comparisons of two methods that are the same, of three seeds each, from run folders to printed p."""
    found = list(_repeated(Kind(run_sd=0.03), Kind(run_sd=0.03), 3, EXPERIMENTS))
    for metric in ("LA", "ACC", "BWT"):
        rejected = sum(one[metric, "p"] < 0.05 for one in found) / EXPERIMENTS
        covered = sum(one[metric, "low"] <= 0 <= one[metric, "high"] for one in found) / EXPERIMENTS
        assert 0.03 <= rejected <= 0.07, metric
        assert 0.93 <= covered <= 0.97, metric


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_report_finds_what_was_planned_in_75_to_85_percent(tmp_path: Path, no_environment: None) -> None:
    """The pilot has as many seeds as make its variances certain; five seeds are planned."""
    kind = Kind(run_sd=0.02)
    for seed in range(40):
        write_run(tmp_path, SMALL, "lora", seed, kind)
        write_run(tmp_path, SMALL, "ewc", seed, kind)
    effect = only(planned(tmp_path, wanted=Wanted(seeds=[5]))).rows[0].mdd / 100
    better = Kind(run_sd=0.02, base=kind.base + effect, learned=kind.learned + effect)
    found = list(_repeated(kind, better, 5, 200))
    assert 0.75 <= sum(one["ACC", "p"] < 0.05 for one in found) / 200 <= 0.85
