"""The audit of one task."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench import stats
from moextend.bench.audit.answers import MOST_ANSWERS, Options, named_in_question, options_of
from moextend.bench.audit.base import BaseRow
from moextend.bench.audit.limits import (
    BROKEN,
    DUPLICATES,
    FORMAT,
    MAJORITY,
    NAMED,
    OPTIONS,
    PROBE,
    SHARED,
    SMALL,
    SOLVED,
    SURE,
    Finding,
)
from moextend.bench.audit.overlap import digest_of, in_training, sample
from moextend.bench.audit.probe import probe_level
from moextend.bench.data import Item, open_items
from moextend.bench.data.source import find_source
from moextend.bench.score.majority import Majority
from moextend.bench.scorers import Answered, is_lettered, score_set
from moextend.bench.stats import planning
from moextend.bench.task import TaskSpec
from moextend.data.hub import is_prepared
from moextend.errors import InputError, MoextendError

if TYPE_CHECKING:
    from moextend.model.modality import Sources

NOT_AUDITED = "not audited"
DISAGREE = 0.5
"""Part of the items in which two methods are taken to differ, if the base has not answered."""


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
    strict: float | None = None
    normalised: float | None = None
    """Readings of the base's answers (docs/scorers.md)."""
    majority: float | None = None
    """Score of the most common training answer to questions of the same form."""
    duplicates: float | None = None
    """Test items that are nearly in training: question and answer about a near duplicate, or nearly the same text."""
    shared: float | None = None
    """Test items whose image or sound has a near duplicate in training; None without media."""
    pair: tuple[str, str] | None = None
    """Test and training row of a duplicate, else of a shared medium."""
    broken: list[str] = field(default_factory=list)
    """Images and sounds that cannot be read: where, and what is wrong."""
    named: float | None = None
    """Points that answering with the only answer named in the question adds to the majority answer."""
    options: Options | None = None
    probe: float | None = None
    """Score of linear probes on the features of the sequence's encoders; None if it was not asked for."""
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


def audit_task(
    task: TaskSpec,
    workspace: Path,
    base: BaseRow,
    *,
    effect: float,
    limit: int,
    scored: int | None = None,
    features: Sources | None = None,
) -> TaskAudit:
    """The audit of a task about media or of questions.

    A task whose data are not on this machine, or are damaged, has only a reason.

    Args:
        limit: most items of a split that are read.
        scored: number of the first test items that are scored (`scoring.limit`); None: all.
        features: modality -> features of its media, for linear probes; None: no probes.
    """
    notes: list[str] = []
    try:
        _refuse_download(task, workspace)
        test = sample(open_items(task, "test", workspace, scored, strict=False), task, "test", limit, notes)
        train = list[Item]()
        if task.data and task.data.train:
            train = sample(open_items(task, "train", workspace, strict=False), task, "training", limit, notes)
        found = _measured(task, train, test, base, effect)
        asked = features if features and not found["broken"] else {}
        probe = probe_level(task, train, test, asked)
    except MoextendError as error:
        return TaskAudit(task.task, reason=f"{NOT_AUDITED}: {error}")
    return TaskAudit(
        task.task, train=len(train), test=len(test), probe=probe, notes=notes,
        findings=_findings({**found, "probe": probe}, effect), **found,
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
            hint=f"'moextend bench show {task.task} --example' downloads it.",
        )


def _measured(
    task: TaskSpec, train: Sequence[Item], test: Sequence[Item], base: BaseRow, effect: float
) -> dict[str, Any]:
    majority = Majority(task, train) if train else None
    common = [majority(item) for item in test] if majority else []
    score = (
        score_set(task.scorer, [Answered.by(*one) for one in zip(common, test, strict=True)])
        if common
        else None
    )
    cell = base.cell(task.task)
    own = {item.id: item for item in base.items(task.task)}
    read = cell.readings if cell else {}
    broken: dict[str, None] = {}
    shown, same, pair = in_training(train, test, broken) if train else (None, None, None)
    mdd, needed = _resolution(test, own, score.items if score else None, effect)
    return {
        "base": cell.value if cell else None,
        "strict": read.get("strict"),
        "normalised": read.get("normalised"),
        "majority": 100 * score.value if score else None,
        "duplicates": same,
        "shared": shown,
        "pair": pair,
        "broken": list(broken),
        "named": _named(task, test, majority, common, 100 * score.value) if majority and score else None,
        "options": options_of(train, test),
        "mdd": mdd,
        "items_needed": needed,
    }


def _named(
    task: TaskSpec, test: Sequence[Item], majority: Majority, common: Sequence[str], level: float
) -> float | None:
    """Points above the majority answer by the answer that the question names; None for free text."""
    answers = majority.answers
    if len(answers) > MOST_ANSWERS and not any(item.choices for item in test):
        return None
    known = frozenset(answers)
    named = [named_in_question(item, known) for item in test]
    lettered = is_lettered(task.scorer)
    answered = [
        Answered.by(usual if word is None else _spoken(word, item, lettered), item)
        for word, usual, item in zip(named, common, test, strict=True)
    ]
    return 100 * score_set(task.scorer, answered).value - level


def _spoken(word: str, item: Item, lettered: bool) -> str:
    """The option as the scorer reads it: its letter, or its text."""
    return string.ascii_uppercase[item.choices.index(word)] if lettered and item.choices else word


def _resolution(
    test: Sequence[Item], base: Mapping[str, Any], majority: Sequence[float | None] | None, effect: float
) -> tuple[float, int | None]:
    """Least difference that the items can show, and the items that show `effect`.

    The pair of methods is the base and the majority answer, clustered by medium; without answers of the base, two
    methods that differ in half of the items.
    """
    import numpy as np

    clusters = [item.group or "+".join(map(digest_of, item.media)) or item.id for item in test]
    place = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    size = max(len(place), 2)
    pairs = [
        (float(base[item.id].score) - usual, place[cluster])
        for item, cluster, usual in zip(test, clusters, majority or [None] * len(test), strict=True)
        if usual is not None and item.id in base and base[item.id].score is not None
    ]
    if len(pairs) > 1:
        off, at = np.array([100 * value for value, _ in pairs]), np.array([number for _, number in pairs])
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


def _findings(found: Mapping[str, Any], effect: float) -> list[Finding]:
    passed = []
    if found["base"] is not None and max(found["base"], found["normalised"] or 0.0) >= SOLVED.value:
        passed.append(Finding.of(SOLVED, max(found["base"], found["normalised"] or 0.0)))
    for limit in (MAJORITY, DUPLICATES, SHARED, NAMED):
        value = found[limit.name]
        if value is not None and value >= limit.value:
            passed.append(Finding.of(limit, value))
    if found["strict"] is not None and found["normalised"] - found["strict"] >= FORMAT.value:
        passed.append(Finding.of(FORMAT, found["normalised"] - found["strict"]))
    options: Options | None = found["options"]
    if options is not None:
        sure = options.p < SURE or options.longest > options.place
        if options.gain >= OPTIONS.value and sure:
            passed.append(Finding.of(OPTIONS, options.gain))
    if found["probe"] is not None and found["probe"] - found["majority"] < PROBE.value:
        passed.append(Finding.of(PROBE, found["probe"] - found["majority"]))
    if found["broken"]:
        passed.append(Finding.of(BROKEN, len(found["broken"])))
    if found["mdd"] > effect:
        passed.append(Finding.of(SMALL, found["mdd"]))
    return passed
