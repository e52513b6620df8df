"""Which values of a table are marked as the best and the second best: those that the tests tell from the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from moextend.bench import methods, stats
from moextend.bench.report.collect import Experiment, Result, grouped, row_name, unfinished_mark
from moextend.bench.report.comparison import (
    CHANGE,
    LESS_IS_BETTER,
    MARGIN,
    METRICS,
    Measured,
    Weigh,
    differences,
    metric_weights,
    same_seeds,
)
from moextend.bench.report.footnotes import unmatched_note
from moextend.bench.report.items import ItemReader, Weights
from moextend.bench.report.table import Style, Table, Value

RULE = (
    "Bold: the best value of a column, where the paired test calls every other method of the table worse. Underlined: "
    "the second best, where there is a bold one and the test calls all further methods worse. The test counts seeds "
    "and items, is corrected for the number of methods (Holm, 5%), and takes differences within "
    f"{MARGIN:g} point as equal; with one seed it tells nothing apart. The base and upper bounds are not ranked."
)
"""What `ranked` does, as a note of its table."""
KINDS = ("forgetting", "tasks", "text")
"""Tables that are ranked."""


def ranked(experiment: Experiment, table: Table) -> Table:
    """The table with the best value of each column bold and the second best underlined, where tests distinguish them.

    The best mean of a column is bold only if the test of `comparison`, with it as the baseline, calls every other
    method of the same order worse: over the seeds that both share and over their items, corrected by Holm for the
    number of other methods at 5%, with differences within MARGIN points called equivalent. The second best mean is
    underlined only if there is a bold one, and if with the second best as the baseline all methods but the best are
    called worse. Where two methods cannot be distinguished, neither is marked. A method that learns nothing is not
    ranked: it forgets nothing. Notes give the rule and, below the summary, what is not matched.
    """
    if table.kind not in KINDS:
        return table
    rows = {
        row_name(group, mark=unfinished_mark(group)).text: group
        for (method, _), group in grouped(experiment.of("sequence")).items()
        if methods.role_of(method) != "base"
    }
    *above, last = table.sections
    reader = ItemReader()
    marks: dict[tuple[str, int], Style] = {}
    for place, column in enumerate(table.columns):
        weigh = _weigh(table, column.key, experiment)
        if weigh is None:
            continue
        sign = -1.0 if column.title in LESS_IS_BETTER else 1.0
        values = {row[0].text: row[place].number for row in last if row[0].text in rows}
        good = {name: sign * value for name, value in values.items() if value is not None}
        found = _column(Measured(reader, weigh), {name: rows[name] for name in good}, good, sign)
        marks |= {(name, place): style for name, style in found.items()}
    shown = [[_styled(value, marks.get((row[0].text, i))) for i, value in enumerate(row)] for row in last]
    costs = unmatched_note(experiment) if table.kind == "forgetting" else ""
    more = [RULE, costs] if costs else [RULE]
    return replace(table, sections=[*above, shown], notes=[*more, *table.notes])


def _column(
    measured: Measured, groups: Mapping[str, Sequence[Result]], good: Mapping[str, float], sign: float
) -> dict[str, Style]:
    """The marks of a column, by row; every order of the tasks has its own."""
    marks: dict[str, Style] = {}
    for order in dict.fromkeys(group[0].config.order for group in groups.values()):
        own = [name for name, group in groups.items() if group[0].config.order == order]
        marks |= _marks(measured, groups, sorted(own, key=good.__getitem__, reverse=True), sign)
    return marks


def _styled(value: Value, style: Style | None) -> Value:
    return replace(value, style=style) if style else value


def _weigh(table: Table, key: str, experiment: Experiment) -> Weigh | None:
    """What a column is made of, as far as it can be tested."""
    titles = {**METRICS, "text_change": CHANGE, "mean": METRICS["acc"] if table.kind == "tasks" else CHANGE}
    if key in titles:
        return partial(metric_weights, titles[key])
    first = experiment.results[0]
    return partial(_final, key) if key in (*first.tasks, *first.text) else None


def _final(task: str, result: Result, at: int | None) -> Weights | None:
    return {(result.last, task): 1.0}


def _marks(
    measured: Measured, groups: Mapping[str, Sequence[Result]], best_first: Sequence[str], sign: float
) -> dict[str, Style]:
    best, second, rest = best_first[:1], best_first[1:2], best_first[2:]
    if not second or not _worse(measured, groups, best[0], [*second, *rest], [], sign):
        return {}
    found: dict[str, Style] = {best[0]: "bold"}
    if rest and _worse(measured, groups, second[0], rest, best, sign):
        found[second[0]] = "underline"
    return found


def _worse(
    measured: Measured, groups: Mapping[str, Sequence[Result]], baseline: str, others: Sequence[str],
    counted: Sequence[str], sign: float,
) -> bool:  # fmt: skip
    """Whether the test calls all `others` worse than the baseline; `counted` are more methods in the family of tests.

    The others come nearest first: one that cannot be distinguished at all decides, and no further answers are read.
    """
    contrasts = []
    for other in [*others, *counted]:
        pairs = same_seeds(groups[baseline], groups[other])
        found = differences([(measured(mine), measured(theirs)) for mine, theirs in pairs])
        contrast = found[1] if found else None
        if contrast is None or (other in others and contrast.p >= stats.LEVEL):
            return False
        contrasts.append(contrast)
    different = stats.holm([contrast.p for contrast in contrasts])
    same = stats.holm([contrast.p_equivalent(MARGIN) for contrast in contrasts])
    tests = list(zip(contrasts, different, same, strict=True))[: len(others)]
    return all(
        stats.verdict(p, equivalent, gain=sign * contrast.value, seeds=contrast.seeds) == "better"
        for contrast, p, equivalent in tests
    )
