"""The plan of seeds, orders and items, and the size and power of the report's own tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moextend.bench.report import tables
from moextend.bench.report.collect import collect
from moextend.bench.report.views.power import Plan, Planned, Wanted, plan, plan_gate
from moextend.bench.run.rundir import find_runs
from moextend.cli.main import app
from moextend.errors import InputError, UnknownName
from tests.bench.ledger import Kind, Shape, write_run

SHAPE = Shape(stages=2, texts=1, items=150, an_image=1, shared_images=False)
ORDERS, SEEDS = ("given", "reverse"), (0, 1, 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("power") / "runs"
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
    from moextend.bench.report.views.gate import gate

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
    (one,), (every,) = collect(find_runs(runs, names)), collect(find_runs(runs, []))
    expected = plan(one, Wanted(), baseline="lora", names=["ACC"])
    one.results += [
        run for run in every.results if run.config.order != "given" and run.config.seed == SEEDS[0]
    ]
    assert only(plan(one, Wanted(), baseline="lora", names=["ACC"])).rows == only(expected).rows != []


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


def command(runs: Path, *words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["bench", "power", "ledger", "-w", str(runs.parent), *words])
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
