"""Seeds and orders are separated if both were run."""

from collections.abc import Sequence

import pytest

from moextend.bench.report import How, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.table import Table, Value
from moextend.bench.run.plan import ordered
from moextend.bench.run.rundir import RunDir
from tests.bench.conftest import MakeRun


def final(value: float) -> list[list[float]]:
    """A matrix of two tasks whose last row has this mean."""
    return [[20.0, 30.0], [80.0, 32.0], [value - 5, value + 5]]


def crossed(
    make_run: MakeRun, method: str = "lora", seeds: Sequence[int] = (0, 1),
    orders: Sequence[str] = ("given", "reverse"),
    shift: float = 0.0,
) -> list[RunDir]:  # fmt: skip
    """final = 50 + 4 a seed + 10 an order: nothing is left over."""
    return [
        make_run(method, seed, final(50 + 4 * seed + 10 * place + shift), (90.0, 85.0, 80.0), order=order)
        for seed in seeds
        for place, order in enumerate(orders)
    ]


def rows(table: Table) -> dict[tuple[str, str], dict[str, Value]]:
    return {(row["method"].text, row["what"].text): row for row in table.records}


def test_components_are_those_of_the_two_way_table(make_run: MakeRun) -> None:
    runs = crossed(make_run)
    _, table = tables(collect(runs, unfinished=True))
    row = rows(table)["lora", "ACC"]
    assert row["mean"].number == 57
    assert row["seed"].number == pytest.approx(8**0.5), "of 50 and 54: variance 8"
    assert row["order"].number == pytest.approx(50**0.5), "of 50 and 60: variance 50"
    assert row["rest"].number == pytest.approx(0)
    assert (row["seeds"].number, row["orders"].number) == (2, 2)
    assert rows(table)["lora", "Δ text"]["sd"].number == 0 and len(table.notes) == 1
    _, table = tables(collect(runs[:-1], unfinished=True))
    row = rows(table)["lora", "ACC"]
    assert row["sd"].number and row["seed"].text == row["order"].text == row["rest"].text == "-"
    assert table.notes[-1].startswith("-: not every seed was run in every order")


def test_an_order_that_has_two_names_is_one_order(make_run: MakeRun) -> None:
    names = [f"random:{next(k for k in range(99) if ordered('ab', f'random:{k}') == ['b', 'a'])}"]
    once = crossed(make_run, seeds=(0,))
    (found,) = collect([*once, *crossed(make_run, seeds=(0, 1), orders=names)], unfinished=True)
    assert [(result.config.seed, result.config.order) for result in found.results] == [
        (0, "given"), (0, "reverse"), (1, "reverse"),
    ]  # fmt: skip
    assert "the same run as" in found.copies[0]


def test_differences_are_of_the_same_seed_and_order(make_run: MakeRun) -> None:
    runs = [*crossed(make_run), *crossed(make_run, "ewc", shift=3.0), make_run("lwf", 0, final(50))]
    *_, table = tables(collect(runs, unfinished=True), "comparison", How("lora"))
    assert {key[0] for key in rows(table)} == {"ewc"}
    row = rows(table)["ewc", "tasks"]
    assert row["mean"].number == pytest.approx(3) and row["sd"].number == pytest.approx(0)
