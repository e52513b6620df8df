"""The audit of the tasks of a sequence: what each can measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moextend.bench import stats
from moextend.bench.audit.base import BaseRow
from moextend.bench.audit.duplicates import MOST, digest_of, in_training, sample
from moextend.bench.data import Item, open_items
from moextend.bench.data.source import find_source
from moextend.bench.score.majority import Majority
from moextend.bench.scorers import Answered, score_set
from moextend.bench.stats import planning
from moextend.bench.task import TaskSpec
from moextend.data.hub import is_prepared
from moextend.errors import InputError, MoextendError

READ = 50_000
"""Most items of a split that are read."""
NOT_AUDITED = "not audited"
DISAGREE = 0.5
"""Part of the items in which two methods are taken to differ, if the base has not answered."""


@dataclass(frozen=True)
class Limit:
    """A limit of one number of the audit."""

    name: str
    value: float
    finding: str
    """What a task has that passes it, with `{}` for its number."""
    why: str
    """Where the limit is from."""


SMALL = Limit(
    "small", 0.0, "too few items: {:.1f} points and more can be shown",
    "the claimed difference (--effect) against the least one that the test of bench report finds with 80% power",
)  # fmt: skip
LIMITS = (
    Limit(
        "base", 90.0, "the base solves {:.0f}%",
        "less than 10 points of headroom: a ceiling, as on saturated benchmarks (MMLU-Pro, Wang et al., 2024)",
    ),
    Limit(
        "majority", 60.0, "common answers solve {:.0f}%",
        "10 points above a balanced question with two answers; language priors (Antol et al., 2015; Goyal et al., "
        "2017; MMStar, Chen et al., 2024)",
    ),
    Limit(
        "duplicates", MOST, "{:.1f}% of test items are in training",
        "CIFAR-10 and CIFAR-100 have 3.3% and 10% near duplicates (Barz and Denzler, 2020); n-grams: Lee et al. "
        "(2022)",
    ),
    Limit(
        "shared", MOST, "{:.1f}% of test items have training media",
        "as for duplicates: other questions about the same image or sound",
    ),
    Limit("broken", 1.0, "{:.0f} media cannot be read", "training or scoring stops at them"),
    SMALL,
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A limit that a task passes."""

    limit: str
    value: float
    text: str


@dataclass(frozen=True)
class TaskAudit:
    """What was found of one task; percents of the test items, and points."""

    task: str
    reason: str = ""
    """Why it could not be audited; empty where it was."""
    train: int = 0
    test: int = 0
    base: float | None = None
    """Score of the base."""
    majority: float | None = None
    """Score of the most common training answer to questions of the same form."""
    duplicates: float | None = None
    """Test items that are nearly in training: question and answer about a near duplicate, or nearly the same text."""
    shared: float | None = None
    """Test items whose image has a near duplicate in training, or another medium an equal one; None without media."""
    pair: tuple[str, str] | None = None
    """Test and training row of a duplicate, else of a shared medium."""
    broken: list[str] = field(default_factory=list)
    """Images and sounds that cannot be read: where, and what is wrong."""
    mdd: float | None = None
    """Least difference of two methods that the items can show, in points: one run, this task alone."""
    items_needed: int | None = None
    """Items with which the claimed difference can be shown."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """ "no finding", what was found, or why it could not be audited."""
        return self.reason or "; ".join(finding.text for finding in self.findings) or "no finding"


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
    effect: float,
    limit: int = READ,
    scored: int | None = None,
    on_task: Callable[[str], None] = lambda name: None,
) -> Audit:
    """The audit of these tasks, each once. Those of lm-eval, which are only scored, have the score of the base alone.

    A task whose data are not on this machine, or are damaged, has only a reason.

    Args:
        effect: difference in points that a task should be able to show.
        limit: most items of a split that are read.
        scored: number of the first test items of a task that are scored (`scoring.limit`); None: all.
        on_task: called with the name of a task before it is audited.
    """
    found = []
    for task in {task.task: task for task in tasks}.values():
        on_task(task.task)
        try:
            found.append(
                _of_text(task, base)
                if task.kind == "text"
                else _of_items(task, workspace, base, effect, limit, scored)
            )
        except MoextendError as error:
            found.append(TaskAudit(task.task, reason=f"{NOT_AUDITED}: {error}"))
    return Audit(sequence, effect, found, base.reason)


def _of_text(task: TaskSpec, base: BaseRow) -> TaskAudit:
    cell = base.cell(task.task)
    if cell is None:
        return TaskAudit(
            task.task, reason=f"{NOT_AUDITED}: lm-eval has the items, and the base has not answered"
        )
    return TaskAudit(task.task, test=cell.n, base=cell.value)


def _of_items(
    task: TaskSpec, workspace: Path, base: BaseRow, effect: float, limit: int, scored: int | None
) -> TaskAudit:
    notes: list[str] = []
    _refuse_download(task, workspace)
    test = sample(open_items(task, "test", workspace, scored, strict=False), task, "test", limit, notes)
    train = list[Item]()
    if task.data and task.data.train:
        train = sample(open_items(task, "train", workspace, strict=False), task, "training", limit, notes)
    cell = base.cell(task.task)
    solved = max(cell.value, cell.readings.get("normalised", 0.0)) if cell else None
    usual: list[float | None] = [None] * len(test)
    numbers: dict[str, Any] = {"base": cell.value if cell else None}
    broken: dict[str, None] = {}
    if train:
        majority = Majority(task, train)
        score = score_set(task.scorer, [Answered.by(majority(item), item) for item in test])
        numbers["majority"], usual = 100 * score.value, list(score.items)
        numbers["shared"], numbers["duplicates"], numbers["pair"] = in_training(train, test, broken)
    own = {item.id: item.score for item in base.items(task.task)}
    mdd, needed = _resolution(test, [own.get(item.id) for item in test], usual, effect)
    return TaskAudit(
        task.task, train=len(train), test=len(test), **numbers, broken=list(broken), mdd=mdd, items_needed=needed,
        findings=_findings({**numbers, "base": solved, "broken": len(broken), "small": mdd}, effect), notes=notes,
    )  # fmt: skip


def _refuse_download(task: TaskSpec, workspace: Path) -> None:
    """Raises InputError if the data of a task are on the hub and not prepared on this machine."""
    if task.data is None:
        return
    where = f"{task.path or task.task}: data.path"
    source = find_source(task.data, task.folder(), workspace, where=where)
    if source.hub is not None and not is_prepared(source.hub):
        raise InputError(
            f"the data set {source.hub} of the hub is not on this machine.",
            where=where,
            hint=f"'moextend bench list {task.task} --example' downloads it.",
        )


def _resolution(
    test: Sequence[Item], base: Sequence[float | None], usual: Sequence[float | None], effect: float
) -> tuple[float, int | None]:
    """Least difference that the items can show, and the items that show `effect`.

    The pair of methods is the base and the majority answer (`usual`), clustered by medium; without answers of the base,
    two methods that differ in half of the items.
    """
    clusters = [item.group or "+".join(map(digest_of, item.media)) or item.id for item in test]
    place = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    size = max(len(place), 2)
    pairs = [
        (100 * (answered - common), place[cluster])
        for answered, common, cluster in zip(base, usual, clusters, strict=True)
        if answered is not None and common is not None
    ]
    if len(pairs) > 1:
        off, at = np.array([value for value, _ in pairs]), np.array([number for _, number in pairs])
        parts = np.bincount(at, weights=off - off.mean(), minlength=size) / len(off)
        found = stats.contrast(
            [float(off.mean())], parts[None], changed=size, floor=stats.unseen(100.0, size)
        )
    else:
        unseen, n = stats.unseen(100.0, len(test)), max(len(test), 2)
        found = stats.Contrast(0.0, 0.0, 100.0**2 * DISAGREE / n + unseen, 1, n, n, unseen=unseen)
    pilot, alone = planning.pilot_of(found), planning.Design(1)
    times = planning.items_needed(pilot, alone, effect, stats.LEVEL)
    needed = None if times is None else int(np.ceil(times * len(test)))
    return planning.detectable(pilot, alone, stats.LEVEL), needed


def _findings(numbers: Mapping[str, float | None], effect: float) -> list[Finding]:
    """The limits that these numbers pass."""
    found = []
    for limit in LIMITS:
        value = numbers.get(limit.name)
        if value is not None and (value > effect if limit is SMALL else value >= limit.value):
            found.append(Finding(limit.name, value, limit.finding.format(value)))
    return found
