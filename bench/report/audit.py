"""The audit of a sequence as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moextend.bench.audit.base import row_of
from moextend.bench.audit.limits import LIMITS, PROBE, SMALL
from moextend.bench.audit.sequence import Audit, audit
from moextend.bench.audit.task import NOT_AUDITED, TaskAudit
from moextend.bench.report.collect import Experiment
from moextend.bench.report.table import Column, Table, Value, count, named, number, text

COLUMNS = [
    Column("task", "task", numeric=False),
    Column("train", "train", spread=""),
    Column("test", "test", spread=""),
    Column("base", "base", spread=""),
    Column("format", "format", spread=""),
    Column("majority", "common", spread=""),
    Column("probe", "probe", spread=""),
    Column("named", "named", spread=""),
    Column("options", "options", spread=""),
    Column("duplicates", "dup. %", spread=""),
    Column("shared", "media %", spread=""),
    Column("mdd", "MDD", spread=""),
    Column("items_needed", "items needed", spread="", wide=True),
    Column("verdict", "verdict", numeric=False),
]
TITLES = {column.key: column.title.removesuffix(" %") for column in COLUMNS} | {SMALL.name: "MDD"}
"""Limit -> the title of its column."""
PROBED = (
    "probe: score of linear probes on the features of the encoders, one for each form of question with 50 training "
    "questions."
)
NOTE = (
    "base: score of the base. format: points by which its normalised answers exceed the strict ones. common: score of "
    "the most common training answer to questions of the same form, without an image or sound. named, options: points "
    "above that, or above guessing, by the only answer that the question names, and by the place or the length of the "
    "right option. dup.: test items with a near duplicate in training. media: test items whose image or sound has a "
    "near duplicate in training. MDD: the smallest difference between two methods that the items can show with "
    "80% power in one run."
)


def audit_tables(experiment: Experiment) -> list[Table]:
    """The audit of the tasks of these runs; the base answered in row 0."""
    first = experiment.results[0]
    config = first.config
    names = [*config.stages, *config.transfer, *config.retention]
    tasks = [config.task_spec(name) for name in names]
    scored = config.sequence["scoring"].get("limit")
    return [audit_table(audit(experiment.label, tasks, config.workspace, row_of(first.run), scored=scored))]


def audit_table(found: Audit) -> Table:
    """One row per task, and below the table what the limits are."""
    passed = {finding.limit for task in found.tasks for finding in task.findings}
    probed = any(task.probe is not None for task in found.tasks)
    notes = [NOTE, PROBED] if probed else [NOTE]
    notes += [
        _limit_note(limit.name, limit.value, limit.why, found.effect)
        for limit in LIMITS
        if limit.name in passed
    ]
    notes += [
        f"{task.task}: {task.pair[0]} is nearly {task.pair[1]}."
        for task in found.tasks
        if task.pair and any(one.limit in ("duplicates", "shared") for one in task.findings)
    ]
    notes += [f"{task.task}: {task.broken[0]}" for task in found.tasks if task.broken]
    notes += [f"{note}." for task in found.tasks for note in task.notes]
    notes += [f"{task.task}: {task.reason}" for task in found.tasks if task.reason]
    notes += [f"{found.base}."] if found.base else []
    columns = [column for column in COLUMNS if probed or column.key != PROBE.name]
    rows = [_row(task, columns) for task in found.tasks]
    return Table(
        f"{found.sequence}-audit",
        f"{found.sequence}: audit of the tasks",
        columns,
        [rows],
        notes,
        kind="audit",
    )


def _limit_note(name: str, value: float, why: str, effect: float) -> str:
    limit = effect if name == SMALL.name else value
    return f"limit of {TITLES.get(name, name)}: {limit:g}; {why}."


def _row(task: TaskAudit, columns: Sequence[Column]) -> list[Value]:
    form = None if task.strict is None or task.normalised is None else task.normalised - task.strict
    options = task.options.gain if task.options else None
    cells = {
        "task": named(task.task),
        "train": count(task.train or None),
        "test": count(task.test or None),
        "base": number(task.base),
        "format": number(form),
        "majority": number(task.majority),
        "probe": number(task.probe),
        "named": number(task.named, signed=True),
        "options": number(options, signed=True),
        "duplicates": number(task.duplicates),
        "shared": number(task.shared),
        "mdd": number(task.mdd),
        "items_needed": count(task.items_needed),
        "verdict": text(NOT_AUDITED if task.reason else task.verdict, "bold" if task.findings else ""),
    }
    return [cells[column.key] for column in columns]


def as_json(found: Audit) -> dict[str, Any]:
    """The audit for machines; a verdict per task, and the limits."""
    return {
        "sequence": found.sequence,
        "effect": found.effect,
        "sound": found.sound,
        "complete": found.complete,
        "base": found.base,
        "limits": {limit.name: found.effect if limit is SMALL else limit.value for limit in LIMITS},
        "tasks": [{**asdict(task), "verdict": task.verdict} for task in found.tasks],
    }
