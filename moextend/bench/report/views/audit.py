"""The audit of a sequence as a table, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from moextend.bench.audit.tasks import LIMITS, NOT_AUDITED, SMALL, Audit, TaskAudit
from moextend.bench.report.table import Row, Table, cells_of, count, named, number, plain, text, words_column

COLUMNS = [
    words_column("task"),
    plain("train"),
    plain("test"),
    plain("base"),
    plain("majority", "common"),
    plain("duplicates", "dup. %"),
    plain("shared", "media %"),
    plain("mdd", "MDD"),
    plain("items_needed", "items needed", wide=True),
    words_column("verdict"),
]
TITLES = {column.key: column.title.removesuffix(" %") for column in COLUMNS} | {SMALL.name: "MDD"}
"""Limit -> the title of its column."""
NOTE = (
    "base: score of the base. common: score of the most common training answer to questions of the same form, without "
    "an image or sound. dup.: test items with a near duplicate in training. media: test items whose image or sound has "
    "a near duplicate in training. MDD: the smallest difference between two methods that the items can show with "
    "80% power in one run."
)


def audit_table(found: Audit) -> Table:
    """One row per task, and below the table what the limits are."""
    passed = {finding.limit for task in found.tasks for finding in task.findings}
    notes = [NOTE]
    for limit in LIMITS:
        if limit.name in passed:
            value = found.effect if limit is SMALL else limit.value
            notes.append(f"limit of {TITLES.get(limit.name, limit.name)}: {value:g}; {limit.why}.")
    notes += [
        f"{task.task}: {task.pair[0]} is nearly {task.pair[1]}."
        for task in found.tasks
        if task.pair and any(one.limit in ("duplicates", "shared") for one in task.findings)
    ]
    notes += [f"{task.task}: {task.broken[0]}" for task in found.tasks if task.broken]
    notes += [f"{note}." for task in found.tasks for note in task.notes]
    notes += [f"{task.task}: {task.reason}" for task in found.tasks if task.reason]
    notes += [f"{found.base}."] if found.base else []
    title, rows = f"{found.sequence}: audit of the tasks", [_row(task) for task in found.tasks]
    return Table(f"{found.sequence}-audit", title, COLUMNS, [rows], notes, kind="audit")


def _row(task: TaskAudit) -> Row:
    cells = {
        "task": named(task.task),
        "train": count(task.train or None),
        "test": count(task.test or None),
        "base": number(task.base),
        "majority": number(task.majority),
        "duplicates": number(task.duplicates),
        "shared": number(task.shared),
        "mdd": number(task.mdd),
        "items_needed": count(task.items_needed),
        "verdict": text(NOT_AUDITED if task.reason else task.verdict, "bold" if task.findings else ""),
    }
    return cells_of(COLUMNS, cells)


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
