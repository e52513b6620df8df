"""Every method against a baseline in the mean over the orders of the tasks, by the same test as in one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

from moextend.bench import stats
from moextend.bench.report.collect import Experiment, Groups, grouped
from moextend.bench.report.comparison import (
    CHANGE,
    COLUMNS,
    METRICS,
    Measure,
    Measured,
    Test,
    differences,
    metric_weights,
    pairs_of,
    section,
)
from moextend.bench.report.items import ItemReader, mean_parts
from moextend.bench.report.table import Table, named
from moextend.errors import counted

NOTE = (
    "Mean over the orders that the method and the baseline share: one value per seed, of the seeds that ran in all of "
    "them. The test is that of one order. It is about these orders; the spread over orders below says how far another "
    "order may be. Each metric is one family of tests over the methods here."
)
Pair = tuple[Measure | None, Measure | None]


def over_orders_tables(
    experiment: Experiment, baseline: str, margin: float, reader: ItemReader
) -> list[Table]:
    """The comparison in the mean over orders; none where no method shares two orders with the baseline."""
    groups = grouped(experiment.of("sequence"))
    sections = []
    for metric in [*METRICS.values(), CHANGE]:
        measured = Measured(reader, partial(metric_weights, metric))
        found = {
            method: shared_orders(measured, groups, method, baseline)
            for method in dict.fromkeys(method for method, _ in groups)
            if method != baseline
        }
        tests = [test for method, orders in found.items() if (test := _test(method, orders))]
        if tests:
            sections.append(section(tests, metric, margin))
    if not any(sections):
        return []
    title = f"{experiment.name}: differences from {baseline}, mean over orders"
    key = f"{experiment.name}-comparison-orders"
    return [Table(key, title, COLUMNS, [rows for rows in sections if rows], [NOTE], kind="comparison")]


def shared_orders(
    measured: Measured, groups: Groups, method: str, baseline: str
) -> dict[str, dict[int, Pair]]:
    """Order -> seed -> the metric of the method and the baseline; only seeds that both have in all these orders."""
    orders = {
        order: pairs
        for name, order in groups
        if name == method and (pairs := pairs_of(measured, groups, method, order, baseline))
    }
    common = set.intersection(*map(set, orders.values())) if orders else set()
    return {order: {seed: pairs[seed] for seed in sorted(common)} for order, pairs in orders.items()}


def mean_difference(
    orders: Mapping[str, Mapping[int, Pair]],
) -> tuple[list[float], stats.Contrast | None] | None:
    """The comparison in the mean over orders, as `differences` has it for one; None where a value is not known."""
    seeds = next(iter(orders.values())).keys()
    pairs: list[Pair] = []
    for seed in seeds:
        mine, theirs = zip(*(pairs_of_order[seed] for pairs_of_order in orders.values()), strict=True)
        pairs.append((_mean(mine), _mean(theirs)))
    return differences(pairs)


def _mean(measures: Sequence[Measure | None]) -> Measure | None:
    known = [measure for measure in measures if measure is not None]
    if len(known) < len(measures):
        return None
    parts = [parts for _, parts in known if parts is not None]
    return fmean(value for value, _ in known), mean_parts(parts) if len(parts) == len(known) else None


def _test(method: str, orders: Mapping[str, Mapping[int, Pair]]) -> Test | None:
    if len(orders) < 2 or not next(iter(orders.values())):
        return None
    found = mean_difference(orders)
    return found and Test(named(method, after=f" ({counted(len(orders), 'order')})"), *found)
