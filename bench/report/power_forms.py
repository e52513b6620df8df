"""A plan of seeds, orders and items as tables, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from moextend.bench import stats
from moextend.bench.report.collect import run_notes
from moextend.bench.report.power import Plan, Planned, Row
from moextend.bench.report.table import Column, Table, Value, count, named, number, text

COMPONENTS = [
    Column("method", "method", numeric=False),
    Column("what", "metric", numeric=False),
    Column("difference", "pilot"),
    Column("seed", "seed", spread=""),
    Column("order", "order", spread=""),
    Column("rest", "seed x order", spread=""),
    Column("own_items", "items, one run", spread=""),
    Column("item", "items, all", spread=""),
    Column("seeds", "seeds", spread=""),
    Column("orders", "orders", spread=""),
    Column("items", "items", spread=""),
]
DESIGNS = [
    Column("method", "method", numeric=False),
    Column("what", "metric", numeric=False),
    Column("orders", "orders", spread=""),
    Column("seeds", "seeds", spread=""),
    Column("items", "items", spread=""),
    Column("power", "power %", spread=""),
    Column("range", "95% interval", numeric=False, machines=False),
    Column("low", "low", spread="", wide=True),
    Column("high", "high", spread="", wide=True),
    Column("mdd", "MDD", spread=""),
    Column("items_needed", "items needed", numeric=False),
    Column("seeds_needed", "seeds needed", numeric=False),
]


MARGIN = "least margin: what can be excluded."


def power_tables(planned: Planned) -> list[Table]:
    """The components of the variance, and the designs."""
    label, wanted = planned.experiment.label, planned.wanted
    what = (
        f"differences from {planned.plans[0].baseline}"
        if planned.margin is None
        else f"the gate at {planned.margin:g} points"
    )
    parts = Table(
        f"{label}-components",
        f"{label}: variance components of {what}",
        _columns(COMPONENTS, planned),
        [[_components(plan) for plan in planned.plans]],
        _component_notes(planned),
        kind="power",
    )
    found = (
        f"find {wanted.effect:g} points"
        if planned.margin is None
        else f"exclude a loss of {planned.margin:g} points (true change {wanted.effect:g})"
    )
    rows = [[_design(plan, row) for row in plan.rows] for plan in planned.plans if plan.rows]
    title = f"{label}: seeds, orders and items that {found} with {wanted.power:.0%} power"
    designs = Table(
        f"{label}-power", title, _columns(DESIGNS, planned), rows, _design_notes(planned), kind="power"
    )
    return [parts, designs] if rows else [parts]


def _columns(columns: Sequence[Column], planned: Planned) -> list[Column]:
    other = {"what": "task", "mdd": "least margin"} if planned.margin else {}
    return [replace(column, title=other.get(column.key, column.title)) for column in columns]


def _components(plan: Plan) -> list[Value]:
    pilot = plan.pilot
    one = pilot.seeds == 1
    return [
        named(plan.method),
        text(plan.what),
        number(plan.difference, signed=True),
        number(None if one else pilot.seed**0.5),
        number(None if pilot.order is None else pilot.order**0.5),
        number(None if pilot.orders == 1 or one else pilot.rest**0.5),
        number(None if one else pilot.own_items**0.5),
        number((pilot.item + pilot.item_by_order + pilot.unseen) ** 0.5),
        count(pilot.seeds),
        count(pilot.orders),
        count(plan.items),
    ]


def _design(plan: Plan, row: Row) -> list[Value]:
    def percent(share: float) -> Value:
        return Value(f"{100 * share:.0f}", 100 * share)

    return [
        named(plan.method),
        text(plan.what),
        count(row.orders),
        count(row.seeds),
        count(row.items),
        percent(row.power),
        text(f"{100 * row.low:.0f} to {100 * row.high:.0f}"),
        percent(row.low),
        percent(row.high),
        number(row.mdd),
        text("none suffices") if row.items_needed is None else count(row.items_needed),
        text("-" if plan.pilot.seeds == 1 else "over 100")
        if row.seeds_needed is None
        else count(row.seeds_needed),
    ]


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
    if planned.one_order:
        notes.append(
            "Planned from the order with most seeds, as fewer than two ran in all orders: "
            f"{', '.join(planned.one_order)}."
        )
    notes += [f"Not planned: {name}." for name in planned.unknown]
    return [*notes, *run_notes(planned.experiment)]


def _design_notes(planned: Planned) -> list[str]:
    wanted, tests = planned.wanted, planned.plans[0].tests
    family = f"{tests} test{'s' * (tests != 1)}"
    if planned.margin is None:
        test = (
            f"The test is that of bench report --baseline (mean over orders with several), at {wanted.alpha:g} for "
            f"{family} together (Bonferroni)."
        )
    else:
        test = f"The test is that of bench gate, one-sided at {wanted.alpha:g} for {family} together."
    least = "MDD: the smallest difference that is found." if planned.margin is None else MARGIN
    notes = [
        f"{test} power: share of repetitions that find it, if the variances are those of the pilot. 95% interval: of "
        f"the power, given how well the pilot knows the two variances. {least}",
        "items needed: of a task, with the seeds and orders of the row. seeds needed: with its items and orders.",
    ]
    if planned.margin and any(plan.pilot.seeds == 1 for plan in planned.plans):
        notes.append("One seed: the plan is about these weights, not about training again.")
    if wanted.alpha != stats.LEVEL:
        notes.append(f"The report itself tests at {stats.LEVEL:g}.")
    few = min((plan.pilot.seeds for plan in planned.plans if plan.rows), default=0)
    if 1 < few < 5:
        notes.append(
            f"A pilot of {few} seeds estimates the variance over seeds badly: plan for the lower end of the interval."
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
            **{name: getattr(each.wanted, name) for name in ("effect", "power", "alpha")},
            "plans": [asdict(one) for one in each.plans],
            "not_planned": each.unknown,
        }
        for each in planned
    ]
