"""Tables of variants of the last models: the rewind dial and the interference map (bench/run/variants.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from moextend.bench import stats
from moextend.bench.report.collect import Experiment, Result, damaged_run, grouped, row_name
from moextend.bench.report.items import ItemReader
from moextend.bench.report.table import (
    WIDTH,
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
from moextend.bench.report.views.comparison import differences
from moextend.bench.report.views.tasks import numbered, task_columns
from moextend.bench.run import variants
from moextend.bench.run.rundir import Cell, run_name
from moextend.bench.run.variants import Variant, VariantCells
from moextend.errors import InputError

METRICS = {"acc": "ACC", "bwt": "BWT", "fm": "FM", "text_after": "text", "text_change": "Δ text"}
"""Columns of the dial -> their title; as in the forgetting table."""
SIGNED = ("bwt", "fm", "text_change")
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


@dataclass(frozen=True)
class Scored:
    """The scored variants of an experiment."""

    cells: dict[str, VariantCells]
    """Folder of a run -> its cells."""
    damaged: list[str] = field(default_factory=list)
    """Runs whose variants cannot be read, or not all."""

    @staticmethod
    def of(experiment: Experiment) -> Scored:
        """Those of all runs."""
        cells, damaged = dict[str, VariantCells](), list[str]()
        for result in experiment.results:
            try:
                cells[str(result.run.folder)] = variants.read(result.run, result.cells)
            except Exception as error:  # one damaged file hides no other run
                damaged.append(damaged_run(result.run, error))
        return Scored(cells, damaged)

    def variants(self, result: Result) -> list[Variant]:
        """The variants of a run with a score, in the order in which they were scored."""
        return list(dict.fromkeys(variant for variant, _ in self.cells.get(str(result.run.folder), {})))

    def row(self, result: Result, variant: Variant) -> Result:
        """The run with the scores of a variant as its last row."""
        own = self.cells[str(result.run.folder)]
        kept: dict[tuple[int, str], Cell] = {
            key: c for key, c in result.cells.items() if key[0] < result.last
        }
        kept |= {(result.last, task): cell for (other, task), cell in own.items() if other == variant}
        return replace(result, cells=kept)

    def tables(self, made: list[Table], where: str) -> list[Table]:
        """The tables with a note of the runs that are left out; InputError if nothing but those is left."""
        if not made and self.damaged:
            raise InputError(
                f"no variant can be read: {'; '.join(self.damaged)}.", where=where, hint="Run again."
            )
        left_out = [f"Left out: {'; '.join(self.damaged)}."] if self.damaged else []
        return [*made[:-1], made[-1].noted(*left_out)] if made else []


def strength_of(variant: Variant) -> float | None:
    """The strength of all stages; None if they differ."""
    found = {strength for _, strength in variant}
    return found.pop() if len(found) == 1 else None


def dial(experiment: Experiment, scored: Scored) -> dict[tuple[str, str, str], Mapping[float, list[Result]]]:
    """(mode, method, order) -> strength -> its runs with the scores of the scaled model as the last row."""
    found: dict[tuple[str, str, str], Mapping[float, list[Result]]] = {}
    for mode in ("sequence", "joint"):
        for (method, order), group in grouped(experiment.of(mode)).items():
            known = [_strengths(result, scored) for result in group]
            wanted = sorted({strength for own in known for strength in own})
            # The empty and the full subset of an interference map make no dial.
            if not any(0 < strength < 1 for strength in wanted):
                continue
            rows: dict[float, list[Result]] = {strength: [] for strength in wanted}
            for result, own in zip(group, known, strict=True):
                lacking = [f"{strength:g}" for strength in wanted if strength not in own]
                if lacking:
                    name = run_name(result.run.folder)
                    scored.damaged.append(f"{name} (not scored at strength {', '.join(lacking)})")
                    continue
                for strength in wanted:
                    rows[strength].append(own[strength])
            if rows[wanted[0]]:
                found[mode, method, order] = rows
    return found


def _strengths(result: Result, scored: Scored) -> dict[float, Result]:
    """Strength -> the run with the scores of the scaled model, of strengths at which all tasks are scored."""
    tasks = set(variants.tasks_of(result.config))
    found = {}
    for variant in scored.variants(result):
        strength, row = strength_of(variant), scored.row(result, variant)
        if strength is not None and tasks <= {task for stage, task in row.cells if stage == result.last}:
            found[strength] = row
    return found


def rewind_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """The dial of every method: a row per strength."""
    scored, name = Scored.of(experiment), experiment.name
    sections = [
        [_dial_row(mode, strength, runs) for strength, runs in rows.items()]
        for (mode, _, _), rows in dial(experiment, scored).items()
    ]
    several = any(value.spread is not None for section in sections for row in section for value in row)
    columns = [words_column("method"), plain("strength")]
    columns += [*(Column(key, title) for key, title in METRICS.items()), plain("runs", wide=True)]
    notes = [DIAL, *([SPREAD] if several else [])]
    title = f"{name}: gain against forgetting"
    made = Table(f"{name}-rewind", title, columns, sections, notes, kind="rewind")
    return scored.tables([made] if sections else [], "report rewind")


def _dial_row(mode: str, strength: float, runs: Sequence[Result]) -> Row:
    known = [run.summary for run in runs]
    return [
        row_name(runs, before="joint, " if mode == "joint" else ""),
        fixed(strength, "g"),
        *(over_runs([own[key] for own in known], signed=key in SIGNED) for key in METRICS),
        count(len(runs)),
    ]


def subsets_tables(experiment: Experiment, asked: Asked) -> list[Table]:
    """The interference map of every method: a row for what is left out, a column per task."""
    scored, reader = Scored.of(experiment), ItemReader()
    groups = grouped(experiment.of("sequence")).values()
    made = [table for group in groups if (table := _map(experiment, group, scored, reader))]
    return scored.tables(made, "report subsets")


def _map(experiment: Experiment, group: Sequence[Result], scored: Scored, reader: ItemReader) -> Table | None:
    """The map of one method; None without subsets."""
    known = list(dict.fromkeys(variant for result in group for variant in scored.variants(result)))
    partial = [v for v in known if {strength for _, strength in v} in ({0.0, 1.0}, {0.0})]
    if not any(strength_of(variant) is None for variant in partial):
        return None  # a dial only
    tasks = [*group[0].tasks, *group[0].text]
    whole = [
        one for one in group if {*product(partial, tasks)} <= scored.cells.get(str(one.run.folder), {}).keys()
    ]
    lacking = [run_name(one.run.folder) for one in group if one not in whole]
    scored.damaged.extend(f"{name} (not scored without all of these stages)" for name in lacking)
    if not whole:
        return None
    group = whole
    with_names = 30 + sum(max(len(task), len("-99.9 (-99.9 to +99.9)")) + 1 for task in tasks) <= WIDTH
    rows = [
        [text(_left_out(variant)), *(_difference(group, variant, task, scored, reader) for task in tasks)]
        for variant in partial
    ]
    columns = [words_column("without"), *task_columns(tasks, with_names=with_names, spread="")]
    name = row_name(group).text
    notes = [LEFT_OUT.format("" if len(group) == 1 else f" and {len(group)} seeds")]
    notes += [] if with_names else [numbered(tasks)]
    title = f"{experiment.name}, {name}: which stages help or hurt which tasks"
    return Table(f"{experiment.name}-{name}-subsets", title, columns, [rows], notes, kind="subsets")


def _left_out(variant: Variant) -> str:
    gone = [stage for stage, strength in variant if not strength]
    return "all (the base)" if len(gone) == len(variant) else ", ".join(gone)


def _difference(
    group: Sequence[Result], variant: Variant, task: str, scored: Scored, reader: ItemReader
) -> Value:
    """Score of the variant less that of the last model, over the runs that have both."""
    pairs, same = [], True
    for result in group:
        own = scored.cells.get(str(result.run.folder), {}).get((variant, task))
        full = result.cells.get((result.last, task))
        if own is None or full is None:
            continue
        same = same and own.weights == full.weights
        weights = {(result.last, task): 1.0}
        without = reader.parts(scored.row(result, variant), weights)
        pairs.append(((own.value, without), (full.value, reader.parts(result, weights))))
    found = differences(pairs) if pairs else None
    if found is None:
        return Value("-", style="dim")
    values, contrast = found
    shown = number(sum(values) / len(values), signed=True)
    if same or contrast is None:
        return replace(shown, style="dim" if same else "")
    low, high = contrast.interval(stats.LEVEL)
    return replace(shown, between=(low, high), style="bold" if low > 0 or high < 0 else "")
