"""The plan of seeds, orders and items, and the size and power of the report's own tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moextend.bench.report import How, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.views.gate import gate
from moextend.bench.report.views.power import Plan, Wanted, plan, plan_gate
from moextend.bench.run.rundir import find_runs
from moextend.bench.stats import planning
from moextend.bench.stats.planning import Design
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


def experiment(folder: Path, *names: str) -> Experiment:
    (found,) = collect(find_runs(folder, list(names)))
    return found


def planned(found: Experiment, metric: str = "ACC", methods: tuple[str, ...] = (), **wanted: float) -> Plan:
    plans = plan(found, Wanted(**wanted), baseline="lora", methods=methods).plans  # type: ignore[arg-type]
    return next(one for one in plans if one.what == metric)


def test_the_plan_of_the_pilots_own_design_is_the_test_of_the_report(runs: Path) -> None:
    """A larger MDD than the report prints of its variances: three seeds leave larger ones possible."""
    given = [f"ledger/{method}-s{seed}" for method in ("lora", "ewc") for seed in SEEDS]
    for found, place, orders in ((experiment(runs, *given), 0, 1), (experiment(runs), 1, 2)):
        rows = tables([found], "comparison", How("lora"))[place].records
        for metric in ("ACC", "BWT"):
            (row,) = [row for row in rows if row["metric"].text == metric]
            one = planned(found, metric)
            own = next(design for design in one.rows if (design.seeds, design.orders) == (3, orders))
            assert one.difference == pytest.approx(row["difference"].number)
            assert row["resolves"].number is not None and own.mdd > row["resolves"].number
            known = replace(one.pilot, seeds=10**6, item_error=0.0)
            if known.seed > 0:
                least = planning.detectable(known, Design(3, orders), 0.05)
                assert least == pytest.approx(row["resolves"].number, rel=0.01)


def test_more_of_anything_never_lowers_the_power(runs: Path) -> None:
    every = experiment(runs)
    found = planned(every, effect=8)
    by_design = {(row.orders, row.seeds): row for row in found.rows}
    assert set(by_design) == {(o, s) for o in (1, 2) for s in (2, 3, 5, 10, 20)}
    for (orders, seeds), row in by_design.items():
        assert row.low <= row.power <= row.high
        assert row.power <= by_design[2, seeds].power + 1e-9 and row.power <= by_design[orders, 20].power
    many = planned(every, effect=8, items=1500)
    assert all(a.power < b.power for a, b in zip(found.rows, many.rows, strict=True))
    needed = found.rows[-1].items_needed
    assert needed is not None
    assert planned(every, effect=8, items=needed).rows[-1].power == pytest.approx(0.8, abs=0.02)


def test_one_seed_gets_what_its_items_can_show_and_a_gate_of_one_seed_is_planned(runs: Path) -> None:
    alone = planned(experiment(runs, "ledger/lora-s0", "ledger/ewc-s0"))
    assert alone.rows == [] and alone.items_only is not None and alone.items_only > 5
    found = experiment(runs, "ledger/lora-s0")
    gates = plan_gate(found, Wanted(effect=0.0), 5.0).plans
    assert [(one.what, one.rows[0].seeds) for one in gates] == [("task1", 1), ("text1", 1)]
    needed = {one.what: one.rows[0].items_needed for one in gates}
    checks = [check for check in gate(found, margin=5.0).checks if check.stage == 2]
    undecided = [check for check in checks if check.verdict == "cannot tell"]
    assert undecided and all(check.items_needed == needed[check.task] for check in undecided)


def test_the_family_is_that_of_the_report_also_where_some_methods_are_planned(runs: Path) -> None:
    found = experiment(runs)
    own = [one for one in found.of("sequence") if one.config.method == "ewc"]
    found.results += [replace(one, config=one.config.model_copy(update={"method": "lwf"})) for one in own]
    every, some = planned(found), planned(found, methods=("ewc",))
    assert every.tests == some.tests == 2 and some.rows == every.rows


def test_a_pilot_with_most_seeds_in_one_order_is_planned_from_it(runs: Path) -> None:
    one = experiment(runs, *(f"ledger/{method}-s{seed}" for method in ("lora", "ewc") for seed in SEEDS))
    expected = planned(one).rows
    other = [run for run in experiment(runs).results if run.config.order != "given"]
    one.results += [run for run in other if run.config.seed == SEEDS[0]]
    assert planned(one).rows == expected != []


def test_what_cannot_be_planned_is_refused_in_one_line(runs: Path, tmp_path: Path) -> None:
    found = experiment(runs)
    with pytest.raises(UnknownName, match="Did you mean 'lora'"):
        plan(found, Wanted(), baseline="lor")
    with pytest.raises(UnknownName, match="no method"):
        plan(found, Wanted(), methods=["lwf"])
    write_run(tmp_path, SHAPE, "lora", 0, Kind())
    write_run(tmp_path, SHAPE, "ewc", 1, Kind())
    with pytest.raises(InputError, match="ACC of ewc: no shared seed"):
        planned(experiment(tmp_path))


def test_the_command_prints_tables_and_json(runs: Path) -> None:
    def command(*words: str) -> str:
        found = CliRunner().invoke(app, ["bench", "power", "ledger", "-w", str(runs.parent), *words])
        assert found.exit_code == 0, found.output
        return found.stdout

    out = command("--baseline", "lora", "--effect", "5", "--seeds", "3,5")
    assert "variance components" in out and "find 5 points with 80% power" in out
    (record,) = json.loads(command("--baseline", "lora", "--json"))
    assert {one["what"] for one in record["plans"]} == {"ACC", "BWT"} and record["alpha"] == 0.05
    assert {"seed", "order", "rest", "item", "own_items"} <= record["plans"][0]["pilot"].keys()
    out = command("--margin", "3", "--method", "ewc")
    assert "exclude a loss of 3 points" in out and "lora" not in out
