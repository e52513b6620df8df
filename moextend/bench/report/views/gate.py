"""The gate: whether what a model could do before is still there, task by task, with a verdict for every cell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal, get_args
from xml.etree import ElementTree

from moextend.bench import methods, stats
from moextend.bench.report.collect import Experiment, Result, grouped, lacking_notes, row_name, run_notes
from moextend.bench.report.items import ItemReader
from moextend.bench.report.notes import NOT_REACHED, backend_notes, source_note, sources
from moextend.bench.report.table import (
    Column,
    Row,
    Table,
    cells_of,
    count,
    number,
    over_runs,
    p_value,
    plain,
    text,
    words_column,
)
from moextend.bench.report.views import MARGIN
from moextend.bench.report.views.comparison import check_margin, differences, is_row_zero
from moextend.bench.stats import planning
from moextend.bench.stats.planning import Design, Pilot
from moextend.errors import InputError, UnknownName, counted, visible

Verdict = Literal["kept", "lost", "kept in these runs", "lost in these runs", "cannot tell"]
BEFORE = "before"
"""The default reference: a task's own score before what is tested was learned."""
SCORE = "a score"
"""What a cell lacks that cannot be compared."""


NEEDS = {
    "same weights": "same weights: the weights that answered before answered again, so nothing can have changed.",
    "not reached": f"not reached: kept {NOT_REACHED}",
    "seeds and items": "seeds and items: neither 100 seeds nor a million times the items would be enough alone.",
    "enough": "enough: what was seen is too near a loss of the margin; neither items nor seeds are missing.",
    SCORE: f"{SCORE}: of this cell or its reference, of at least one seed, is missing.",
    "answers": "answers: the answers of single items are not kept, or there are too few to compare.",
}
"""What a verdict rests on or lacks -> the note of it."""


@dataclass(frozen=True)
class Check:
    """One cell against its reference."""

    method: str
    stage: int
    stage_name: str
    task: str
    before: float | None
    """Mean over seeds, in percent; None where a score is missing."""
    after: float | None
    items: int
    seeds: int
    values: list[float]
    """One difference per seed, in points; empty where a score is missing."""
    found: stats.Contrast | None
    """None where nothing can have changed, or items are not kept."""
    unchanged: str
    """Why nothing can have changed: "same weights", or no input of the task reaches what was learned; else empty."""
    verdict: Verdict = "cannot tell"
    p_kept: float | None = None
    """p of a loss of the margin or more (non-inferiority)."""
    p_lost: float | None = None
    """p of no difference, corrected over all cells (Holm)."""
    low: float | None = None
    """Lower 95% bound of the difference."""
    low_here: float | None = None
    """That of these runs, with items as the only source of variance."""
    items_needed: int | None = None
    """Items with which the verdict would be kept if nothing is lost, of lost ones lost, with 80% power; None: none."""
    seeds_needed: int | None = None
    """Seeds likewise."""

    @property
    def difference(self) -> float | None:
        """After less before, mean over seeds, in points; None where a score is missing."""
        return fmean(self.values) if self.values else None

    @property
    def lacks(self) -> str:
        """What is missing, so that nothing can be compared: a score; else empty."""
        return "" if self.values else SCORE

    @property
    def needs(self) -> str:
        """What the verdict rests on, or what it lacks, in a few words."""
        if self.lacks or self.unchanged:
            return self.lacks or self.unchanged
        if self.found is None:
            return "answers"
        if self.verdict in ("kept", "lost"):
            return ""
        if (self.items_needed or math.inf) <= self.items or (self.seeds_needed or math.inf) <= self.seeds:
            return "enough"
        needed = [f"{self.items_needed:,} items"] if self.items_needed else []
        needed += [f"{self.seeds_needed} seeds"] if self.seeds_needed else []
        return " or ".join(needed) or "seeds and items"


@dataclass(frozen=True)
class Gate:
    """The verdicts over one experiment."""

    experiment: str
    """The sequence."""
    variant: str
    """See Experiment.variant."""
    label: str
    """Names the experiment among those that are tested together."""
    baseline: str
    margin: float
    checks: list[Check]
    left_out: list[str]
    """Runs that are not tested, and why."""
    notes: list[str]

    @property
    def verdict(self) -> Verdict:
        """lost where one cell is, at least in these runs; kept where all cells of all runs are; else cannot tell."""
        found: set[Verdict] = {check.verdict for check in self.checks}
        found |= {"cannot tell"} if self.left_out else set()
        lost = found & {"lost", "lost in these runs"}
        return "lost" if lost else "kept" if found == {"kept"} else "cannot tell"

    @property
    def counts(self) -> dict[Verdict, int]:
        """Verdict -> number of cells."""
        found = Counter(check.verdict for check in self.checks)
        return {verdict: found[verdict] for verdict in get_args(Verdict)}


def gate(experiment: Experiment, baseline: str = BEFORE, margin: float = MARGIN) -> Gate:
    """A verdict for every cell of every run that has a reference.

    A task that a run learns later has none in `before`, but has with the other baselines. A cell without a score is
    undecided (cannot tell), and so is the gate where a run has no seed of the baseline.

    See `verdicts`. Cells that the same weights answered, or whose inputs reach nothing that was learned, are kept by
    construction.

    Args:
        baseline: `before`: a learned task against the row of its own stage, every other task against row 0. A method or
            a run (RUN or SEQUENCE/RUN): the same cell of that method (same seed and order) or run. The name of the base
            (zero-shot): row 0.
        margin: what may be lost, in points, 100 at most.

    Raises:
        UnknownName: no run of `baseline`. InputError: the margin is not a number of points above 0 and up to
            100, or no cell can be compared.
    """
    check_margin(margin)
    baseline = baseline.removeprefix(f"{experiment.name}/")
    reader = ItemReader()
    checks = [compare(reader, *cell) for cell in _cells(experiment, baseline)]
    if not checks:
        raise InputError(
            f"no cell of {experiment.name} has a reference.",
            where="--baseline",
            hint="Compare runs of a sequence, or with a method that ran with the same seeds.",
        )
    if not any(check.seeds for check in checks):
        raise InputError(
            f"no cell of {experiment.name} has a score and that of its reference.",
            hint="The same command makes what is missing.",
        )
    judged = verdicts(checks, margin)
    unmatched = _unmatched(experiment, baseline)
    left_out = [name for name in experiment.left_out if name not in experiment.copies] + unmatched
    notes = _notes(experiment, judged, baseline, margin)
    notes += [f"Not compared: {', '.join(unmatched)}."] if unmatched else []
    if left_out:
        notes.append(
            "The gate cannot tell: runs that belong to it are not tested. Finish them, or name the others."
        )
    return Gate(
        experiment.name, experiment.variant, experiment.label, baseline, margin, judged, left_out, notes
    )


def verdicts(checks: Sequence[Check], margin: float) -> list[Check]:
    """The cells with their verdicts.

    kept: a loss of `margin` points or more is excluded by a non-inferiority test at 5%, cell by cell; that all are kept
    is then wrong in at most 5% (intersection-union test: Berger, 1982). lost: the score fell, at 5% for all cells
    (Holm), and kept is not shown. Where seeds vary too much for either, the same tests with items as the only source of
    variance are about these runs. cannot tell: none of them.
    """
    tested = [check.found for check in checks if check.found]
    corrected = (
        stats.holm([found.p for found in tested]),
        stats.holm([found.of_these_runs.p for found in tested]),
    )
    lost = iter(zip(*corrected, strict=True))
    return [
        _judged(check, margin, len(tested), *next(lost)) if check.found
        else replace(check, verdict="kept") if check.unchanged
        else check
        for check in checks
    ]  # fmt: skip


def _judged(check: Check, margin: float, tests: int, p_lost: float, p_lost_here: float) -> Check:
    """The cell with its verdict, from corrected p-values of no difference: of training again, and of these runs."""
    found = check.found
    assert found is not None
    here, level, fell = found.of_these_runs, stats.LEVEL, found.value < 0
    said: list[tuple[Verdict, bool]] = [
        ("kept", found.p_not_worse(margin) < level),
        ("lost", p_lost < level and fell),
        ("kept in these runs", here.p_not_worse(margin) < level),
        ("lost in these runs", p_lost_here < level and fell),
    ]
    verdict: Verdict = next((word for word, shown in said if shown), "cannot tell")
    low, low_here = (max(each.interval(2 * level)[0], -100.0) for each in (found, here))
    judged = replace(
        check, verdict=verdict, p_kept=found.p_not_worse(margin), p_lost=p_lost, low=low, low_here=low_here
    )
    if verdict in ("kept", "lost"):
        return judged
    size = (-found.value, level / tests) if verdict == "lost in these runs" else (margin, 2 * level)
    return _with_needs(judged, planning.pilot_of(found), *size)


def _with_needs(check: Check, pilot: Pilot, distance: float, level: float) -> Check:
    """With the items or seeds that find the distance with 80% expected power, in a two-sided test at the level."""
    asked = pilot, Design(pilot.seeds), distance, level
    times = planning.items_needed(*asked)
    return replace(
        check,
        items_needed=None if times is None else max(check.items, math.ceil(check.items * times)),
        seeds_needed=None if pilot.seeds == 1 else planning.seeds_needed(*asked),
    )


Place = tuple[Result, int]
"""A run and one of its stages."""
Pair = tuple[Result, int, Result, int, str]
"""Run, stage, reference run, its stage, task."""


Cell = tuple[str, Result, int, str, list[Pair]]
"""A cell of a method: the row's name, a run, the stage, the task, and its reference in every seed that has one."""


def _cells(experiment: Experiment, baseline: str) -> Iterator[Cell]:
    """The cells of every method, stage and task that have references."""
    groups = grouped(experiment.of("sequence"))
    runs = {result.name: result for group in groups.values() for result in group}
    names = [*dict.fromkeys(method for method, _ in groups), methods.named("base"), BEFORE]
    if baseline not in names and baseline not in runs:
        raise UnknownName("method or run", baseline, [*names, *runs], where="--baseline")
    for (method, order), group in groups.items():
        theirs = {result.config.seed: result for result in groups.get((baseline, order), [])}

        def reference(
            result: Result, stage: int, own: int, theirs: Mapping[int, Result] = theirs
        ) -> Place | None:
            """The run and stage that a cell is compared with; None without one."""
            if baseline == BEFORE:
                return (result, own) if stage > own else None
            if baseline not in runs and is_row_zero(baseline):
                return result, 0
            other = runs.get(baseline) or theirs.get(result.config.seed)
            return None if other is None or other is result else (other, stage)

        first = group[0]
        for stage in range(1, first.last + 1) if method != baseline else ():
            for task in [*first.tasks, *first.text, *first.config.transfer]:
                own = first.tasks.index(task) + 1 if task in first.tasks else 0
                found = [(result, reference(result, stage, own)) for result in group]
                pairs = [(result, stage, *other, task) for result, other in found if other]
                if pairs:
                    yield row_name(group).text, first, stage, task, pairs


def _unmatched(experiment: Experiment, baseline: str) -> list[str]:
    """The runs for whose seed and order the method `baseline` has no run; none if it is another kind of reference."""
    runs = experiment.of("sequence") if not is_row_zero(baseline) else []
    seeds = {(run.config.order, run.config.seed) for run in runs if run.config.method == baseline}
    return [
        f"{run.name} ({baseline} has no run with seed {run.config.seed}"
        f"{'' if run.config.order == 'given' else ' and this order'})"
        for run in runs
        if seeds and (run.config.order, run.config.seed) not in seeds
    ]


def compare(
    reader: ItemReader, name: str, result: Result, stage: int, task: str, pairs: Sequence[Pair]
) -> Check:
    """A cell over its seeds; see `Cell`."""
    scored = [
        (mine, theirs, pair)
        for pair in pairs
        if (mine := pair[0].cells.get((pair[1], task))) and (theirs := pair[2].cells.get((pair[3], task)))
    ]
    empty = Check(name, stage, result.stage_names[stage - 1], task, None, None, 0, len(scored), [], None, "")
    if len(scored) < len(pairs):
        return empty
    unchanged, found = "", None
    if all(mine.weights == theirs.weights != "" for mine, theirs, _ in scored):
        unchanged = "same weights"
    elif task in result.text and all(at == 0 and each.text_untouched for each, _, _, at, _ in pairs):
        unchanged = "not reached"
    else:  # only here are the answers of single items needed
        found = differences(
            [
                (
                    (mine.value, reader.parts(run, {(row, own): 1.0})),
                    (theirs.value, reader.parts(other, {(at, own): 1.0})),
                )
                for mine, theirs, (run, row, other, at, own) in scored
            ]
        )
    return replace(
        empty,
        before=fmean(theirs.value for _, theirs, _ in scored),
        after=fmean(mine.value for mine, _, _ in scored),
        items=scored[0][0].n,
        values=[mine.value - theirs.value for mine, theirs, _ in scored],
        found=found and found[1],
        unchanged=unchanged,
    )


def gates(experiments: Sequence[Experiment], baseline: str = BEFORE, margin: float = MARGIN) -> list[Gate]:
    """The gate of each experiment. One that cannot be tested, among others that can, is undecided, and says why.

    Raises:
        UnknownName, InputError: as `gate`, where no experiment can be tested.
    """
    found, problems = list[Gate](), list[InputError]()
    for experiment in experiments:
        try:
            found.append(gate(experiment, baseline, margin))
        except InputError as problem:
            problems.append(problem)
            why = [f"{experiment.label}: {problem}"]
            found.append(
                Gate(experiment.name, experiment.variant, experiment.label, baseline, margin, [], why, why)
            )
    if len(problems) == len(found) and problems:
        raise problems[0]
    return found


def explained(before: str, checks: Sequence[Check], margin: float) -> list[str]:
    """What the words of the table mean; `before`: the reference."""
    notes = [
        f"{before}. diff.: score less reference, in points. at least: its lower 95% bound, for training "
        "again.",
        f"kept: a loss of {margin:g} (--margin) or more is excluded at 5%. lost: the score fell at 5%, corrected for "
        "all cells (Holm), and kept is not shown. cannot tell: neither. needs: the items or seeds that find with 80% "
        "power a loss as seen in cells that lost in these runs, in others that nothing is lost.",
    ]
    if any(check.verdict.endswith("these runs") for check in checks):
        notes.append(
            "in these runs: seeds cannot tell of training again, items can of these weights, in the mean over seeds."
        )
    found = {check.needs for check in checks}
    return notes + [words for needs, words in NEEDS.items() if needs in found]


def _notes(experiment: Experiment, checks: Sequence[Check], baseline: str, margin: float) -> list[str]:
    before = {
        BEFORE: "reference: a learned task right after its own stage; every other task in the base (row 0)",
        methods.named("base"): "reference: the base (row 0)",
    }.get(baseline, f"reference: the same cell of {baseline}")
    notes = explained(before, checks, margin)
    if others := [result.name for result in experiment.results if result.config.mode != "sequence"]:
        notes.append(f"Not tested, as tasks are not learned in turn: {', '.join(others)}.")
    if any(check.seeds == 1 and check.found for check in checks):
        notes.append("One seed: the verdict is about these weights, not about training again.")
    notes += [note] if (note := source_note(sources([experiment]))) else []
    return [
        *notes, *backend_notes(experiment.results), *lacking_notes(experiment.results), *run_notes(experiment),
    ]  # fmt: skip


COLUMNS = [
    words_column("method"),
    plain("stage"),
    words_column("learned", wide=True),
    words_column("task"),
    words_column("verdict"),  # in sight in a narrow terminal
    Column("difference", "diff."),
    plain("low", "at least"),
    plain("low_here", "these runs", wide=True),
    plain("before", "reference"),
    plain("after", "score"),
    words_column("needs"),
    plain("p_kept", "p of kept", wide=True),
    plain("p_lost", "p of lost", wide=True),
    plain("items", wide=True),
    plain("items_needed", "items needed", wide=True),
    plain("seeds_needed", "seeds needed", wide=True),
    plain("seeds", wide=True),
]


def gate_table(found: Gate) -> Table:
    """The verdicts as a table, a section a method."""
    sections: dict[str, list[Row]] = {}
    for check in found.checks:
        sections.setdefault(check.method, []).append(_row(check))
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found.counts.items() if count)
    counts += f"; {counted(len(found.left_out), 'run')} not tested" if found.left_out else ""
    title = f"{found.label}: {found.verdict} ({counts})"
    return Table(f"{found.label}-gate", title, COLUMNS, list(sections.values()), found.notes, kind="gate")


def _row(check: Check) -> Row:
    cells = {
        "method": text(check.method),
        "stage": count(check.stage),
        "learned": text(check.stage_name),
        "task": text(check.task),
        "before": number(check.before),
        "after": number(check.after),
        "difference": over_runs(check.values, signed=True),
        "low": number(check.low, signed=True),
        "low_here": number(check.low_here, signed=True),
        "verdict": text(check.verdict, "" if check.verdict == "kept" else "bold"),
        "needs": text(check.needs),
        "p_kept": p_value(check.p_kept),
        "p_lost": p_value(check.p_lost),
        "items": count(check.items),
        "items_needed": count(check.items_needed),
        "seeds_needed": count(check.seeds_needed),
        "seeds": count(check.seeds),
    }
    return cells_of(COLUMNS, cells)


def as_json(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    """The verdicts for machines: one record per experiment, and in it one per cell, as in the table."""
    shown = [column.key for column in COLUMNS if column.key not in ("learned", "needs")]
    return [
        {
            "sequence": found.experiment,
            **{
                name: getattr(found, name)
                for name in ("variant", "baseline", "margin", "verdict", "counts", "left_out")
            },
            "cells": [
                {name: getattr(check, name) for name in (*shown, "unchanged", "lacks")}
                for check in found.checks
            ],
        }
        for found in gates
    ]


_KINDS = {"kept": "", "lost": "failure", "lost in these runs": "failure"}
"""Verdict -> element of JUnit; of others "error"."""


def as_junit(gates: Sequence[Gate]) -> str:
    """The verdicts as JUnit XML, for CI: a suite a sequence, a case a cell.

    A lost cell is a failure. One that is undecided, or kept in these runs alone, is an error, as is a run that is not
    tested: none counts as passed.
    """
    root = ElementTree.Element("testsuites")
    for found in gates:
        cases = [
            (
                check.method,
                f"stage {check.stage} {check.stage_name}: {check.task}",
                check.verdict,
                _words(check),
            )
            for check in found.checks
        ]
        cases += [("not tested", visible(name), "cannot tell", "not tested") for name in found.left_out]
        kinds = Counter(_KINDS.get(verdict, "error") for *_, verdict, _ in cases)
        suite = ElementTree.SubElement(
            root, "testsuite", name=found.label, tests=str(len(cases)),
            failures=str(kinds["failure"]), errors=str(kinds["error"]),
        )  # fmt: skip
        for method, name, verdict, why in cases:
            case = ElementTree.SubElement(suite, "testcase", classname=f"{found.label}.{method}", name=name)
            if verdict != "kept":
                ElementTree.SubElement(case, _KINDS.get(verdict, "error"), message=why)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _words(check: Check) -> str:
    """The verdict of a cell with its scores."""
    low = "" if check.low is None else f", at least {check.low:+.1f}"
    scores = f"{check.before:.1f} to {check.after:.1f} ({check.difference:+.1f}{low})" if check.values else ""
    needs = f"needs {check.needs}" if check.needs else ""
    return "; ".join(filter(None, (check.verdict, scores, needs)))
