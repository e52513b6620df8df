"""Which values of a table are bold, in every format: the best that the tests of the comparison tell from the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from moextend.bench import methods, stats
from moextend.bench.report.collect import Experiment, Result, grouped, row_name
from moextend.bench.report.items import ItemReader, Weights
from moextend.bench.report.table import RANKED, Table
from moextend.bench.report.views.comparison import (
    TESTED,
    Measured,
    Weigh,
    differences,
    metric_weights,
    pairs_of,
    verdicts,
)

RULE = (
    "Bold: the best of its column among methods that are given the task id, or among those that are not, where the "
    "paired test calls each of the others worse (--baseline); never what holds by construction, the base or a bound."
)
"""What `ranked` does, as a note of its table."""
ONE_SEED = "Nothing is bold: with one seed, no test tells methods apart."

Group = tuple[bool, str]
"""Methods that compete: whether they are given the task id, and the order of the stages."""


def ranked(experiment: Experiment, table: Table) -> Table:
    """The table with the best value of each column bold, where tests distinguish it.

    The best mean among the methods that are given the task id, and among those that are not, is bold if
    `comparison_table` with it as the baseline calls every other one of them worse. Two values are never bold: that of a
    method that learns nothing, and one that is what it is by construction, as the same weights answered before and
    after. A note gives the rule.
    """
    if table.kind not in RANKED:
        return table
    groups = grouped(experiment.of("sequence"))
    keys = {row_name(group).text: key for key, group in groups.items()}
    *above, last = table.sections
    rows: dict[Group, list[str]] = defaultdict(list)
    for name in (row[0].text for row in last if row[0].text in keys):
        if methods.role_of(keys[name][0]) != "base":
            rows[groups[keys[name]][0].given, keys[name][1]].append(name)
    rows = {group: names for group, names in rows.items() if len(names) > 1}
    reader, bold = ItemReader(), set[tuple[str, int]]()
    for place, column in enumerate(table.columns):
        weigh = _weigh(table, column.key, experiment) if rows else None
        if weigh is None:
            continue
        measured = Measured(reader, weigh)
        values = {row[0].text: value for row in last if (value := row[place].number) is not None}
        for names in rows.values():
            best, *others = sorted(values.keys() & names, key=values.__getitem__, reverse=True) or [""]
            if not others or all(_by_construction(weigh, one) for one in groups[keys[best]]):
                continue
            # The nearest one mostly decides, and no further answers are read.
            nearest = differences([*pairs_of(measured, groups, *keys[others[0]], keys[best][0]).values()])
            if not (nearest and nearest[1] and nearest[1].p < stats.LEVEL):
                continue
            found = verdicts(measured, groups, keys[best][0])
            if all(found.get(name) == "worse" for name in others):
                bold.add((best, place))
    shown = [
        [replace(value, style="bold") if (row[0].text, i) in bold else value for i, value in enumerate(row)]
        for row in last
    ]
    several = any(len(groups[keys[name]]) > 1 for names in rows.values() for name in names)
    notes = [RULE if several else ONE_SEED] if rows else []
    return replace(table, sections=[*above, shown], notes=[*notes, *table.notes])


def _weigh(table: Table, key: str, experiment: Experiment) -> Weigh | None:
    """What a column is made of, as far as it can be tested."""
    tested = {
        "forgetting": {metric: metric for metric in TESTED},
        "tasks": {"mean": "acc"},
        "text": {"mean": "text_change", "change": "text_change"},
    }[table.kind]
    if key in tested:
        return partial(metric_weights, tested[key])
    first = experiment.results[0]
    return partial(_final, key) if key in (*first.tasks, *first.text) else None


def _final(task: str, result: Result, at: int | None) -> Weights | None:
    return {(result.last, task): 1.0}


def _by_construction(weigh: Weigh, result: Result) -> bool:
    """Whether a value cannot be otherwise: a difference between answers of the same weights, or an untouched text."""
    weights: Mapping[tuple[int, str], float] = weigh(result, None) or {}
    if weights and {task for _, task in weights} <= {*result.text} and result.text_untouched:
        return True
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for key, weight in weights.items():
        cell = result.cells.get(key)
        sums[key[1], cell.weights if cell else ""] += weight
    return all(made and abs(total) < 1e-9 for (_, made), total in sums.items())
