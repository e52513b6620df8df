"""Tables of variants of the last models: the rewind dial and the interference map (bench/run/variants.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from moextend.bench import stats
from moextend.bench.report.collect import (
    SIGNED,
    TITLES,
    Experiment,
    Result,
    damaged_run,
    grouped,
    row_name,
    without_damaged,
)
from moextend.bench.report.items import ItemReader
from moextend.bench.report.table import (
    Column,
    Row,
    Table,
    Value,
    count,
    fixed,
    number,
    over_runs,
    plain,
    text,
    words_column,
)
from moextend.bench.report.views import Asked
from moextend.bench.report.views.comparison import Measure, differences
from moextend.bench.report.views.tasks import task_columns
from moextend.bench.run import variants
from moextend.bench.run.rundir import run_name
from moextend.bench.run.variants import Variant, VariantCells

METRICS = ("acc", "bwt", "fm", "text_after", "text_change")
"""Columns of the dial; as in the forgetting table."""
DIAL = (
    "strength: what the stages learned, scaled without training: 0 is the base, 1 the last model as it is. "
    "ACC, BWT, FM, text: the metrics of the forgetting table with the scaled model's scores as the last row; Δ text: "
    "change of the text tasks from the base, in points."
)
LEFT_OUT = (
    "Rows: the last model without what some stages learned. Columns: score without them less the score of the last "
    "model, in points, with its 95% interval over paired items{}. Positive: without them the task is better, so they "
    "hurt it. Bold: the interval excludes 0. 0.0 without an interval: the same weights answered."
)
SPREAD = "±: standard deviation over seeds."


Scored = Mapping[Variant, Result]
"""Variant -> a run with its scores as the last row."""


def _scored(experiment: Experiment) -> tuple[dict[str, Scored], list[str]]:
    """Folder of a run -> its variants, and the runs whose variants cannot be read."""
    found, damaged = dict[str, Scored](), list[str]()
    for result in experiment.results:
        try:
            found[str(result.run.folder)] = _rows(result, variants.read(result.run, result.cells))
        except Exception as error:  # one damaged file hides no other run
            damaged.append(damaged_run(result.run, error))
    return found, damaged


def _rows(result: Result, cells: VariantCells) -> Scored:
    """The variants that have a score on every task, in the order in which they were scored."""
    before = {key: cell for key, cell in result.cells.items() if key[0] < result.last}
    found: dict[Variant, Result] = {}
    for variant in dict.fromkeys(variant for variant, _ in cells):
        own = {(result.last, task): cell for (other, task), cell in cells.items() if other == variant}
        if {task for _, task in own} >= {*variants.tasks_of(result.config)}:
            found[variant] = replace(result, cells={**before, **own})
    return found


def _complete(
    group: Sequence[Result], scored: Mapping[str, Scored], wanted: Sequence[Variant], damaged: list[str]
) -> list[tuple[Result, Scored]]:
    """The runs that have all wanted variants; the others are named in `damaged`."""
    kept = []
    for run in group:
        own = scored.get(str(run.run.folder))
        if own is None:
            continue
        if lacking := [variants.label(variant) for variant in wanted if variant not in own]:
            damaged.append(f"{run_name(run.run.folder)} (not scored: {', '.join(lacking)})")
        else:
            kept.append((run, own))
    return kept


def _known(group: Sequence[Result], scored: Mapping[str, Scored]) -> list[Variant]:
    """The variants of any run, as scored."""
    return list(dict.fromkeys(variant for run in group for variant in scored.get(str(run.run.folder), {})))


def _strength(variant: Variant) -> float | None:
    """The strength of all stages; None if they differ."""
    found = {strength for _, strength in variant}
    return found.pop() if len(found) == 1 else None


def rewind_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """The dial of every method: a row per strength."""
    scored, damaged = _scored(experiment)
    sections = []
    for mode in ("sequence", "joint"):
        for group in grouped(experiment.of(mode)).values():
            wanted = [variant for variant in _known(group, scored) if _strength(variant) is not None]
            # The empty and the full subset of an interference map make no dial.
            if {_strength(variant) for variant in wanted} <= {0.0, 1.0}:
                continue
            dial = sorted(wanted, key=lambda variant: _strength(variant) or 0.0)
            if kept := _complete(group, scored, dial, damaged):
                sections.append([_dial_row(variant, [own[variant] for _, own in kept]) for variant in dial])
    several = any(value.spread is not None for section in sections for row in section for value in row)
    columns = [words_column("method"), plain("strength")]
    columns += [*(Column(key, TITLES[key]) for key in METRICS), plain("runs", wide=True)]
    title, notes = f"{experiment.label}: gain against forgetting", [DIAL, *([SPREAD] if several else [])]
    made = Table(f"{experiment.label}-rewind", title, columns, sections, notes, kind="rewind")
    return without_damaged([made] if sections else [], damaged, "report rewind")


def _dial_row(variant: Variant, runs: Sequence[Result]) -> Row:
    return [
        row_name(runs),
        fixed(_strength(variant), "g"),
        *(over_runs([run.summary[key] for run in runs], signed=key in SIGNED) for key in METRICS),
        count(len(runs)),
    ]


def subsets_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """The interference map of every method: a row for what is left out, a column per task."""
    (scored, damaged), reader, made = _scored(experiment), ItemReader(), []
    for group in grouped(experiment.of("sequence")).values():
        known = _known(group, scored)
        partial = [v for v in known if {strength for _, strength in v} in ({0.0, 1.0}, {0.0})]
        if all(_strength(variant) is not None for variant in partial):
            continue  # a dial only, or nothing
        if kept := _complete(group, scored, partial, damaged):
            made.append(_map(experiment, partial, kept, reader))
    return without_damaged(made, damaged, "report subsets")


def _map(
    experiment: Experiment,
    partial: Sequence[Variant],
    kept: Sequence[tuple[Result, Scored]],
    reader: ItemReader,
) -> Table:
    full = [run for run, _ in kept]
    tasks, method = [*full[0].tasks, *full[0].text], row_name(full).text
    rows = [
        [
            text(_left_out(variant)),
            *(_difference([own[variant] for _, own in kept], full, task, reader) for task in tasks),
        ]
        for variant in partial
    ]
    notes = [LEFT_OUT.format("" if len(full) == 1 else f" and {len(full)} seeds")]
    title = f"{experiment.label}, {method}: which stages help or hurt which tasks"
    columns = [words_column("without"), *task_columns(tasks, "")]
    return Table(f"{experiment.label}-{method}-subsets", title, columns, [rows], notes, kind="subsets")


def _left_out(variant: Variant) -> str:
    gone = [stage for stage, strength in variant if not strength]
    return "all (the base)" if len(gone) == len(variant) else ", ".join(gone)


def _difference(without: Sequence[Result], full: Sequence[Result], task: str, reader: ItemReader) -> Value:
    """Score of the variant less that of the last model, over runs."""
    pairs, same = list[tuple[Measure | None, Measure | None]](), True
    for both in zip(without, full, strict=True):
        first, second = (run.cells.get((run.last, task)) for run in both)
        same = same and bool(first and second and first.weights == second.weights)
        measures: list[Measure | None] = [
            (cell.value, reader.parts(run, {(run.last, task): 1.0})) if cell else None
            for run, cell in zip(both, (first, second), strict=True)
        ]
        pairs.append((measures[0], measures[1]))
    found = differences(pairs)
    if found is None:
        return Value("-", style="dim")
    values, contrast = found
    shown = number(sum(values) / len(values), signed=True)
    if same or contrast is None:
        return replace(shown, style="dim" if same else "")
    low, high = contrast.interval(stats.LEVEL)
    return replace(shown, between=(low, high), style="bold" if low > 0 or high < 0 else "")
