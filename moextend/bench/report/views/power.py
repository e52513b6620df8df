"""How many seeds, orders and items a comparison or the gate needs, from the variances that kept runs have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from moextend.bench import stats
from moextend.bench.report.collect import TITLES, Experiment, Groups, Result, grouped, run_notes
from moextend.bench.report.items import ItemReader
from moextend.bench.report.table import (
    Column,
    Table,
    Value,
    cells_of,
    count,
    fixed,
    named,
    number,
    plain,
    text,
    words_column,
)
from moextend.bench.report.views.comparison import (
    Measured,
    Pair,
    check_baseline,
    default_baseline,
    differences,
    mean_difference,
    metric_weights,
    pairs_of,
    shared_orders,
)
from moextend.bench.report.views.gate import gate
from moextend.bench.stats import planning
from moextend.bench.stats.planning import Design, Pilot
from moextend.errors import InputError, UnknownName, counted

NO_ITEMS = "the answers to items are not stored, or there are too few"
"""Why a comparison has no variance of items."""
SEEDS = (2, 3, 5, 10, 20)
"""Numbers of seeds that are planned by default, besides that of the pilot."""
METRICS = ("acc", "bwt")
"""Metrics of a comparison that are planned."""


@dataclass(frozen=True)
class Wanted:
    """What a comparison should find."""

    effect: float = 2.0
    """True difference in points; for the gate the true change."""
    power: float = stats.POWER
    seeds: Sequence[int] = ()
    """Empty: those of the pilot and SEEDS; of orders there are 1, and those of the pilot."""
    items: int | None = None
    """Items of a task; None: those of the pilot."""


@dataclass(frozen=True)
class Row:
    """One design of an experiment."""

    seeds: int
    orders: int
    items: int
    """Of a task, mean over tasks."""
    mdd: float
    """Least difference that is found with the wanted power, in points; for the gate the least margin."""
    power: float
    """Expected over what the pilot leaves possible: probability, 0..1, that the effect is found."""
    low: float
    """Lower limit of its 95% interval: what the pilot leaves possible."""
    high: float
    items_needed: int | None
    """Items of a task with the wanted power; None: no number suffices."""
    seeds_needed: int | None
    """Seeds with the wanted power, at `items`; None: 100 do not suffice, or one seed says nothing of others."""


@dataclass(frozen=True)
class Plan:
    """What one comparison needs."""

    method: str
    baseline: str
    what: str
    """The metric, or the task of a cell of the gate."""
    difference: float
    """What the pilot found, in points."""
    pilot: Pilot
    items: int
    """Items of a task in the pilot, mean over tasks."""
    tests: int
    rows: list[Row] = field(default_factory=list)
    """Empty for a comparison with one seed."""
    items_only: float | None = None
    """Of a comparison with one seed: least difference that its items alone can show. Seeds add to it."""


@dataclass(frozen=True)
class Planned:
    """The plans over one experiment."""

    experiment: Experiment
    wanted: Wanted
    margin: float | None
    """Of the gate; None for comparisons."""
    plans: list[Plan]
    unknown: list[str]
    """Comparisons that cannot be planned, and why."""


def plan(
    experiment: Experiment,
    wanted: Wanted,
    *,
    methods: Sequence[str] = (),
    baseline: str | None = None,
) -> Planned:
    """What the tests of `bench report --baseline` need to find a difference.

    Args:
        methods: those that are compared with the baseline; empty: all others.
        baseline: a method that has run, or the base; None: the package's own method.

    Raises:
        UnknownName: no such method.  InputError: no comparison has runs of both methods with the answers of items.
    """
    groups = grouped(experiment.of("sequence"))
    known = list(dict.fromkeys(method for method, _ in groups))
    against = baseline or default_baseline(known)
    check_baseline(against, known)
    _check_methods(methods, known)
    compared = [method for method in methods or known if method != against]
    tests = len({*known} - {against})  # those of the report, also without some
    reader = ItemReader()
    plans, unknown = list[Plan](), list[str]()
    for metric in METRICS:
        measured = Measured(reader, partial(metric_weights, metric))
        for method in compared:
            found = _difference(_orders(measured, groups, method, against))
            if isinstance(found, str):
                unknown.append(f"{TITLES[metric]} of {method}: {found}")
            else:
                first = Plan(method, against, TITLES[metric], *found, _items(groups, method), tests)
                plans.append(_with_rows(first, wanted, stats.LEVEL / tests))
    if not plans:
        raise InputError(
            f"no plan can be made: {'; '.join(unknown) or f'no method besides {against}'}.",
            where=experiment.label,
            hint=f"Run two methods with the same seeds: moextend bench run {experiment.name} -m lora -m moextend "
            "--seed 0,1,2.",
        )
    return Planned(experiment, wanted, None, plans, unknown)


def plan_gate(
    experiment: Experiment, wanted: Wanted, margin: float, *, methods: Sequence[str] = ()
) -> Planned:
    """What `bench gate` needs to show after the last stage that less than `margin` points are lost.

    The true change is `wanted.effect`: 0, or a loss smaller than the margin.

    Raises:
        UnknownName: no such method.  InputError: see `gate`; or no cell can be tested.
    """
    _check_methods(methods, list(dict.fromkeys(run.config.method for run in experiment.of("sequence"))))
    checks = [check for check in gate(experiment, margin=margin).checks if check.found]
    last = max((check.stage for check in checks), default=0)
    plans = []
    for check in checks:
        assert check.found is not None
        if check.stage == last and (not methods or check.method.partition(" (")[0] in methods):
            pilot = planning.pilot_of(check.found)
            first = Plan(check.method, "before", check.task, fmean(check.values), pilot, check.items, 1)
            plans.append(_with_rows(first, wanted, 2 * stats.LEVEL, margin))
    if not plans:
        raise InputError(
            "no cell after the last stage needs a test: all are kept by construction or have no stored answers.",
            where=experiment.label,
            hint="Name other methods, or see moextend bench gate.",
        )
    return Planned(experiment, wanted, margin, plans, [])


def _check_methods(methods: Sequence[str], known: Sequence[str]) -> None:
    for method in methods:
        if method not in known:
            raise UnknownName("method", method, known, where="--method")


def _orders(measured: Measured, groups: Groups, method: str, baseline: str) -> dict[str, dict[int, Pair]]:
    """`shared_orders`; where fewer than two seeds ran in all of them, the one with most seeds alone."""
    orders = shared_orders(measured, groups, method, baseline)
    if len(orders) < 2 or len(next(iter(orders.values()))) > 1:
        return orders
    each = {order: pairs_of(measured, groups, method, order, baseline) for order in orders}
    most = max(each, key=lambda order: len(each[order]))
    return {most: each[most]} if len(each[most]) > 1 else orders


def _difference(orders: Mapping[str, Mapping[int, Pair]]) -> tuple[float, Pilot] | str:
    """The difference and its components; else why they are not known."""
    if not orders:
        return "no shared seed"
    if not next(iter(orders.values())):
        return "no seed ran in all orders"
    single = []
    values: dict[tuple[int, str], float] = {}
    for order, pairs in orders.items():
        found = differences(list(pairs.values()))
        if found is None:
            return "a score is missing"
        if found[1] is None:
            return NO_ITEMS
        single.append(found[1])
        values |= {(seed, order): value for seed, value in zip(pairs, found[0], strict=True)}
    seeds = single[0].seeds
    if len(orders) == 1 or seeds == 1:
        return single[0].value, planning.pilot_of(single[0])
    mean = mean_difference(orders)
    assert mean is not None and mean[1] is not None
    return mean[1].value, planning.pilot_of_orders(values, single, mean[1])


def _items(groups: Groups, method: str) -> int:
    """Items of a learned task, mean over tasks."""
    result: Result = next(group[0] for (name, _), group in groups.items() if name == method)
    sizes = [
        cell.n
        for (stage, task), cell in result.cells.items()
        if stage == result.last and task in result.tasks
    ]
    return max(1, round(fmean(sizes)))


def _with_rows(first: Plan, wanted: Wanted, level: float, margin: float | None = None) -> Plan:
    """The plan with a row per design; of a comparison with one seed only what its items can show."""
    pilot = first.pilot
    times = (wanted.items or first.items) / first.items
    if pilot.seeds == 1 and margin is None:
        least = planning.detectable(pilot, Design(1, times=times), level, wanted.power)
        return replace(first, items_only=least)
    alone = pilot.seeds == 1
    designs = [
        Design(seeds, orders, times)
        for orders in ([1] if alone else sorted({1, pilot.orders}))
        for seeds in ([1] if alone else wanted.seeds or sorted({pilot.seeds, *SEEDS}))
    ]
    distance = wanted.effect + (margin or 0.0)
    seeds = {
        each.orders: None if alone else planning.seeds_needed(pilot, each, distance, level, wanted.power)
        for each in {each.orders: each for each in designs}.values()
    }
    return replace(
        first, rows=[_row(first, each, wanted, level, margin, seeds[each.orders]) for each in designs]
    )


def _row(
    first: Plan, design: Design, wanted: Wanted, level: float, margin: float | None, seeds_needed: int | None
) -> Row:
    pilot, distance = first.pilot, wanted.effect + (margin or 0.0)
    possible = planning.powers(pilot, design, distance, level)
    low, high = np.quantile(possible, [stats.LEVEL / 2, 1 - stats.LEVEL / 2])
    items = planning.items_needed(pilot, design, distance, level, wanted.power)
    return Row(
        seeds=design.seeds,
        orders=design.orders,
        items=wanted.items or first.items,
        mdd=planning.detectable(pilot, design, level, wanted.power) - (wanted.effect if margin else 0.0),
        power=float(possible.mean()),
        low=float(low),
        high=float(high),
        items_needed=None if items is None else math.ceil(items * first.items),
        seeds_needed=seeds_needed,
    )


COMPONENTS = [
    words_column("method"),
    words_column("what", "metric"),
    Column("difference", "pilot"),
    plain("seed"),
    plain("order"),
    plain("rest", "seed x order"),
    plain("own_items", "items, one run"),
    plain("item", "items, all"),
    plain("seeds"),
    plain("orders"),
    plain("items"),
]
DESIGNS = [
    words_column("method"),
    words_column("what", "metric"),
    plain("orders"),
    plain("seeds"),
    plain("items"),
    plain("power", "power %"),
    Column("range", "95% interval", numeric=False, machines=False),
    plain("low", wide=True),
    plain("high", wide=True),
    plain("mdd", "MDD"),
    words_column("items_needed", "items needed"),
    words_column("seeds_needed", "seeds needed"),
]


def power_tables(planned: Planned) -> list[Table]:
    """The components of the variance, and the designs."""
    label, wanted, margin = planned.experiment.label, planned.wanted, planned.margin
    what = f"differences from {planned.plans[0].baseline}"
    found = f"find {wanted.effect:g} points"
    if margin is not None:
        what = f"the gate at {margin:g} points"
        found = f"exclude a loss of {margin:g} points (true change {wanted.effect:g})"
    components, designs = (_columns(columns, planned) for columns in (COMPONENTS, DESIGNS))
    parts = [cells_of(components, _components(plan)) for plan in planned.plans]
    rows = [
        [cells_of(designs, _design(plan, row)) for row in plan.rows] for plan in planned.plans if plan.rows
    ]
    title = f"{label}: variance components of {what}"
    first = Table(f"{label}-components", title, components, [parts], _component_notes(planned), kind="power")
    title = f"{label}: seeds, orders and items that {found} with {wanted.power:.0%} power"
    second = Table(f"{label}-power", title, designs, rows, _design_notes(planned), kind="power")
    return [first, second] if rows else [first]


def _columns(columns: Sequence[Column], planned: Planned) -> list[Column]:
    other = {"what": "task", "mdd": "least margin"} if planned.margin else {}
    return [replace(column, title=other.get(column.key, column.title)) for column in columns]


def _components(plan: Plan) -> dict[str, Value]:
    pilot = plan.pilot
    one = pilot.seeds == 1
    return {
        "method": named(plan.method),
        "what": text(plan.what),
        "difference": number(plan.difference, signed=True),
        "seed": number(None if one else pilot.seed**0.5),
        "order": number(None if pilot.order is None else pilot.order**0.5),
        "rest": number(None if pilot.orders == 1 or one else pilot.rest**0.5),
        "own_items": number(None if one else pilot.own_items**0.5),
        "item": number((pilot.item + pilot.item_by_order + pilot.unseen) ** 0.5),
        "seeds": count(pilot.seeds),
        "orders": count(pilot.orders),
        "items": count(plan.items),
    }


def _design(plan: Plan, row: Row) -> dict[str, Value]:
    power, low, high = (fixed(100 * share, ".0f") for share in (row.power, row.low, row.high))
    no_seeds = text("-" if plan.pilot.seeds == 1 else "over 100")
    return {
        "method": named(plan.method),
        "what": text(plan.what),
        "orders": count(row.orders),
        "seeds": count(row.seeds),
        "items": count(row.items),
        "power": power,
        "range": text(f"{low.text} to {high.text}"),
        "low": low,
        "high": high,
        "mdd": number(row.mdd),
        "items_needed": text("none suffices") if row.items_needed is None else count(row.items_needed),
        "seeds_needed": no_seeds if row.seeds_needed is None else count(row.seeds_needed),
    }


def _component_notes(planned: Planned) -> list[str]:
    notes = [
        "pilot: the difference in the kept runs. seed, order, seed x order: standard deviations between runs, without "
        "the part of the items. items: standard error of one difference from the sample of items: in one run alone, "
        "and alike in all runs, which more seeds do not average out. items (last column): of a task, mean over tasks."
    ]
    if any(plan.pilot.orders == 1 for plan in planned.plans):
        notes.append(
            "One order: nothing is known about the spread between orders, and the plans expect no gain "
            "from more orders."
        )
    alone = [plan for plan in planned.plans if plan.items_only is not None]
    if alone:
        least = ", ".join(f"{plan.what} of {plan.method} {plan.items_only:.1f}" for plan in alone)
        notes.append(
            "One seed says nothing about the spread between seeds, so no number of seeds can be planned. "
            f"Smallest differences that the items alone can show (seeds add to them): {least} points. "
            "Run at least two seeds, preferably five: moextend bench run --seed 0,1,2,3,4."
        )
    notes += [f"Not planned: {name}." for name in planned.unknown]
    return [*notes, *run_notes(planned.experiment)]


def _design_notes(planned: Planned) -> list[str]:
    if planned.margin is None:
        test = (
            "The test is that of bench report --baseline (mean over orders with several), at "
            f"{stats.LEVEL:g} for {counted(planned.plans[0].tests, 'test')} together (Bonferroni)."
        )
        least = "MDD: the smallest difference that is found."
    else:
        test = f"The test is that of bench gate, one-sided at {stats.LEVEL:g} for each cell."
        least = "least margin: what can be excluded."
    notes = [
        f"{test} power: share of repetitions that find it, expected over the variances that the pilot leaves possible. "
        f"95% interval: of the power over them. {least}",
        "items needed: of a task, with the seeds and orders of the row. seeds needed: with its items and orders.",
    ]
    if planned.margin and any(plan.pilot.seeds == 1 for plan in planned.plans):
        notes.append("One seed: the plan is about these weights, not about training again.")
    few = min((plan.pilot.seeds for plan in planned.plans if plan.rows), default=0)
    if 1 < few < 5:
        notes.append(
            f"A pilot of {few} seeds knows the variance over seeds badly, so more seeds are planned for it."
        )
    return notes


def as_json(planned: Sequence[Planned]) -> list[dict[str, Any]]:
    """The plans for machines: one record per experiment; variances in squared points."""
    return [
        {
            "sequence": each.experiment.name,
            "variant": each.experiment.variant,
            "test": "comparison" if each.margin is None else "gate",
            "margin": each.margin,
            "effect": each.wanted.effect,
            "power": each.wanted.power,
            "alpha": stats.LEVEL,
            "plans": [asdict(one) for one in each.plans],
            "not_planned": each.unknown,
        }
        for each in planned
    ]
