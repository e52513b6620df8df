"""Published numbers below the measured ones, under the definitions of their paper and of one protocol only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moextend.bench.metrics import average
from moextend.bench.references import PublishedColumn, Reference, find_reference
from moextend.bench.report.collect import Experiment, Result, grouped, row_name
from moextend.bench.report.table import Column, Table, Value, fixed, over_runs, text, words_column
from moextend.errors import InputError

NOTE = (
    "published: numbers of a paper, with its own base, data sizes and training; they are no baseline that was run "
    "here, and nothing is tested against them. measured: this project's runs under the same definitions."
)


def read_references(names: Sequence[str], workspace: Path) -> list[Reference]:
    """The published numbers of these names, from the workspace or the package; UnknownName for a missing one."""
    return [find_reference(name, workspace) for name in names]


def published_tables(experiments: Sequence[Experiment], references: Sequence[Reference]) -> list[Table]:
    """One table a reference: the measured rows of every experiment, and below them the published ones.

    Raises:
        InputError: the references are of several protocols, or an experiment does not follow theirs.
    """
    protocols = list(dict.fromkeys(reference.protocol for reference in references))
    if len(protocols) > 1:
        raise InputError(
            f"references of several protocols: {', '.join(protocols)}. Their numbers cannot be compared.",
            where="--references",
            hint="Name references of one protocol per call.",
        )
    for experiment in experiments:
        _refuse_other(experiment, protocols[0])
    return [_table(experiments, reference) for reference in references]


def _refuse_other(experiment: Experiment, protocol: str) -> None:
    own = {result.config.protocol for result in experiment.results}
    if own != {protocol}:
        named = ", ".join(sorted(name or "no published protocol" for name in own))
        raise InputError(
            f"sequence '{experiment.name}' follows {named}, the published numbers follow '{protocol}'.",
            where="--references",
            hint=f"Name the runs of a sequence with 'protocol: {protocol}', or leave --references out.",
        )


def _table(experiments: Sequence[Experiment], reference: Reference) -> Table:
    refused = {key: _refusal(column, reference, experiments) for key, column in reference.columns.items()}
    columns = [words_column("method"), words_column("from")]
    columns += [Column(key, column.title) for key, column in reference.columns.items()]
    measured = [
        [
            row_name(group, before="" if len(experiments) == 1 else f"{experiment.label}: "),
            text("measured"),
            *(_measured(group, column, refused[key]) for key, column in reference.columns.items()),
        ]
        for experiment in experiments
        for group in grouped(experiment.of("sequence")).values()
    ]
    published = [
        [
            text(str(row["method"])),
            text("published"),
            *(_published(row.get(key)) for key in reference.columns),
        ]
        for row in reference.rows
    ]
    made_with = ", ".join(filter(None, [reference.source, reference.backbone]))
    notes = [NOTE, *_definitions(reference)]
    for experiment in experiments:
        limit = experiment.shared["sequence"].get("scoring", {}).get("limit")
        if limit:
            fewer = f"{experiment.label} was scored on {limit} items per task at most"
            notes.append(f"{fewer}, the published numbers on all.")
    notes += [
        f"{reference.columns[key].title} is refused for measured runs: {why}."
        for key, why in refused.items()
        if why and measured
    ]
    notes += [] if measured else ["No run of this protocol is done: published numbers only."]
    return Table(
        f"{reference.reference}-published",
        f"{reference.reference}: published numbers, protocol {reference.protocol} ({made_with})",
        columns,
        [section for section in (measured, published) if section],
        notes,
        kind="published",
    )


def _measured(group: Sequence[Result], column: PublishedColumn, refused: str) -> Value:
    if refused or not (column.tasks or column.metric):
        return Value("-")
    if column.tasks:
        return over_runs(_score(result, column) for result in group)
    return over_runs(result.summary[str(column.metric)] for result in group)


def _score(result: Result, column: PublishedColumn) -> float | None:
    """The final score (or further metric) of the column's tasks, their mean; None unless all are known."""
    cells = [result.cells.get((result.last, task)) for task in column.tasks]
    if column.reading is None:
        return average([cell.value if cell else None for cell in cells])
    return average([cell.readings.get(column.reading) if cell else None for cell in cells])


def _refusal(column: PublishedColumn, reference: Reference, experiments: Sequence[Experiment]) -> str:
    """Why measured numbers may not stand in a column: tasks that are not scored as the paper scores them."""
    if column.refused:
        return column.refused
    tasks = column.tasks or (_averaged(column, experiments) if column.metric else ())
    if not reference.scoring and not reference.unscored:
        return ""
    found = {task: _scored_otherwise(task, reference, experiments) for task in tasks}
    return "; ".join(dict.fromkeys(why for why in found.values() if why))


def _averaged(column: PublishedColumn, experiments: Sequence[Experiment]) -> tuple[str, ...]:
    """The tasks that a metric is the mean of. Text tasks are lm-eval's own: their scoring has no other version."""
    if column.metric == "text_change":
        return ()
    results = [result for experiment in experiments for result in experiment.results]
    return tuple(dict.fromkeys(task for result in results for task in result.tasks))


def _scored_otherwise(task: str, reference: Reference, experiments: Sequence[Experiment]) -> str:
    theirs = reference.scoring.get(task)
    if theirs is None:
        if why := reference.unscored.get(task):
            return f"{task}: {why}"
        return reference.unscored.get("*") or f"{task} is not known to be scored as in the paper"
    results = [result for experiment in experiments for result in experiment.results]
    used = {cell.scorer for result in results for (_, name), cell in result.cells.items() if name == task}
    other = sorted(used - {theirs})
    return f"{task} was scored by {', '.join(other)}, the paper counts as {theirs} does" if other else ""


def _published(number: str | float | None) -> Value:
    return fixed(None if number is None else float(number), "g")


def _definitions(reference: Reference) -> list[str]:
    meanings = [f"{column.title}: {column.means}" for column in reference.columns.values() if column.means]
    notes = [f"{'; '.join(meanings)}."] if meanings else []
    return [*notes, reference.description] if reference.description else notes
