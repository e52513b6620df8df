"""The audit of all tasks of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.audit.base import BaseRow
from moextend.bench.audit.task import NOT_AUDITED, TaskAudit, audit_task
from moextend.bench.task import TaskSpec

if TYPE_CHECKING:
    from moextend.model.modality import Sources

EFFECT = 5.0
"""Points that one task should be able to show."""
LIMIT = 50_000
"""Maximum number of items read per split."""


@dataclass(frozen=True)
class Audit:
    """What was found of a sequence."""

    sequence: str
    effect: float
    tasks: list[TaskAudit]
    base: str = ""
    """Why the base has not answered; empty if it has."""

    @property
    def sound(self) -> bool:
        """Whether no task passes a limit."""
        return not any(task.findings for task in self.tasks)

    @property
    def complete(self) -> bool:
        """Whether every task was audited."""
        return not any(task.reason for task in self.tasks)


def audit(
    sequence: str,
    tasks: Iterable[TaskSpec],
    workspace: Path,
    base: BaseRow,
    *,
    effect: float = EFFECT,
    limit: int = LIMIT,
    scored: int | None = None,
    features: Sources | None = None,
    on_task: Callable[[str], None] = lambda name: None,
) -> Audit:
    """The audit of these tasks, each once. Those of lm-eval, which are only scored, have the score of the base alone.

    Args:
        effect: difference in points that a task should be able to show.
        limit: most items of a split that are read.
        scored: number of the first test items of a task that are scored (`scoring.limit`); None: all.
        features: modality -> features of its media, for linear probes; None: no probes.
        on_task: called with the name of a task before it is audited.
    """
    found = []
    for task in {task.task: task for task in tasks}.values():
        on_task(task.task)
        if task.kind == "text":
            found.append(_of_text(task, base))
        else:
            found.append(
                audit_task(
                    task, workspace, base, effect=effect, limit=limit, scored=scored, features=features
                )
            )
    return Audit(sequence, effect, found, base.reason)


def _of_text(task: TaskSpec, base: BaseRow) -> TaskAudit:
    cell = base.cell(task.task)
    if cell is None:
        return TaskAudit(
            task.task, reason=f"{NOT_AUDITED}: lm-eval has the items, and the base has not answered"
        )
    return TaskAudit(task.task, test=cell.n, base=cell.value)
