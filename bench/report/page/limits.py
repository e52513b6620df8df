"""What the results cannot show: too few items, unequal costs, missing runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from moextend.bench import methods
from moextend.bench.report.collect import Experiment, grouped, input_notes, lacking_notes
from moextend.bench.report.footnotes import media_of
from moextend.bench.report.forgetting import text_untouched
from moextend.bench.report.gate import gate
from moextend.bench.report.page.verdict import ACC, Verdict, rows_of
from moextend.bench.report.sources import sources
from moextend.bench.report.table import Table
from moextend.bench.tuned import TEST
from moextend.errors import InputError

CELLS = 6000
"""Cells up to which each is tested."""
SEEDS = 3
"""Seeds below which a method's spread says little."""


@dataclass(frozen=True)
class Limit:
    """One kind of limit, and where it holds."""

    title: str
    text: str
    rows: list[list[str]] = field(default_factory=list)
    """What it holds for; the first row is the head."""


def limits(experiment: Experiment, found: Verdict, costs: Table) -> list[Limit]:
    """The limits of an experiment; none is left out because it is common."""
    return [
        *_undecided(found), *_cells(experiment), *_seeds(experiment), *_identity(experiment),
        *_unmatched(costs), *_tuned(experiment), *_untouched(experiment), *_missing(experiment),
    ]  # fmt: skip


def _undecided(found: Verdict) -> Iterator[Limit]:
    if found.comparison is None:
        return
    baseline = found.comparison.title.rpartition(" ")[2]
    rows = [
        row for row in rows_of(found.comparison, ACC) if row["verdict"].text in ("undecided", "items only")
    ]
    if rows:
        yield Limit(
            "Undecided differences",
            f"The ACC of these methods and of {baseline} differs by less than the test resolves. MDD: the smallest "
            "true difference that is found with 80% power.",
            [
                ["method", "difference", "95% interval", "MDD", "seeds"],
                *(
                    [row[key].text for key in ("method", "difference", "interval", "resolves", "seeds")]
                    for row in rows
                ),
            ],
        )


def _cells(experiment: Experiment) -> Iterator[Limit]:
    """Cells whose items cannot show that nothing was lost."""
    if sum(len(result.cells) for result in experiment.of("sequence")) > CELLS:
        yield Limit(
            "Underpowered cells",
            f"There are more than {CELLS:,} cells: moextend bench gate tests them one by one.",
        )
        return
    try:
        made = gate(experiment)
    except InputError:
        return
    short = [check for check in made.checks if check.verdict == "cannot tell" and check.values]
    if short:
        yield Limit(
            "Underpowered cells",
            f"{len(short)} of {len(made.checks)} cells have too few items or seeds to tell whether the task lost "
            f"{made.margin:g} point or more. items: with which a true difference of 0 would be shown.",
            [
                ["method", "stage", "task", "before", "after", "items now", "needs"],
                *(
                    [
                        check.method, f"{check.stage} {check.stage_name}", check.task, f"{check.before:.1f}",
                        f"{check.after:.1f}", f"{check.items:,}", check.needs,
                    ]
                    for check in short
                ),
            ],
        )  # fmt: skip


def _seeds(experiment: Experiment) -> Iterator[Limit]:
    groups = grouped(experiment.of("sequence"))
    few = {key: len(group) for key, group in groups.items() if len(group) < SEEDS}
    few = {key: count for key, count in few.items() if methods.role_of(key[0]) != "base"}
    if few:
        yield Limit(
            "Few seeds",
            f"Fewer than {SEEDS} seeds say little about training again.",
            [["method", "order", "runs"], *([*key, str(count)] for key, count in few.items())],
        )
    if len({order for _, order in groups}) == 1:
        yield Limit(
            "One task order",
            "All runs learn the tasks in the same order; another may rank methods otherwise.",
        )


def _identity(experiment: Experiment) -> Iterator[Limit]:
    groups = grouped(experiment.of("sequence"))
    known = {method: group[0].facts.task_identity or "not recorded" for (method, _), group in groups.items()}
    if len(set(known.values())) > 1:
        yield Limit(
            "Unequal task identity",
            "A method that is given the task id answers an easier question than one that is not.",
            [["method", "task id"], *([method, identity] for method, identity in known.items())],
        )


def _unmatched(costs: Table) -> Iterator[Limit]:
    rows = [
        [row[0].text, ", ".join(f"{column.title} {value.text}" for column, value in zip(costs.columns, row, strict=True)
                                if value.text.endswith("≠"))]
        for section in costs.sections for row in section if any(value.text.endswith("≠") for value in row)
    ]  # fmt: skip
    if rows:
        yield Limit("Unmatched costs", costs.notes[-1], [["method", "differs in"], *rows])


def _tuned(experiment: Experiment) -> Iterator[Limit]:
    found = sources([experiment])
    if TEST in found.values():
        yield Limit(
            "Settings tuned on test items",
            "The settings of these methods were chosen on items that are scored here, so their scores are too high, "
            "and more so for methods with more settings (moextend bench tune).",
            [["method", "settings"], *([method, own] for method, own in found.items())],
        )


def _untouched(experiment: Experiment) -> Iterator[Limit]:
    names = sorted({one.config.method for one in experiment.of("sequence") if text_untouched(one)})
    if names and any(result.text for result in experiment.results):
        yield Limit(
            "Text kept by construction",
            f"No input without {media_of(experiment.results).one} reaches what these methods learned, so the base "
            "answers the text tasks. It says nothing about text that looks like a learned task.",
            [["method"], *([name] for name in names)],
        )


def _missing(experiment: Experiment) -> Iterator[Limit]:
    rows = [["left out", name] for name in experiment.left_out]
    rows += [["incomplete", note] for note in lacking_notes(experiment.results)]
    rows += [["other data", note] for note in input_notes(experiment)]
    rows += [["not finished", result.name] for result in experiment.results if result.state != "done"]
    if rows:
        yield Limit(
            "Missing runs", "These runs are not in the tables, or not complete.", [["what", "run"], *rows]
        )
