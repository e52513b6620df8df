"""The scores of trials, the best one of each method, the sequence that it is written to, and all as a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from moextend.bench import metrics
from moextend.bench.report.table import Column, Table, count, number, text
from moextend.bench.report.views.forgetting import setting
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import State
from moextend.bench.run.rundir import RunDir
from moextend.bench.sequence import SequenceSpec
from moextend.bench.tuned import Tuned
from moextend.bench.tuning.trials import PERCENT, Planned, Trial, beyond
from moextend.bench.workspace.edit import Draft
from moextend.bench.workspace.yaml_edit import set_value
from moextend.errors import counted
from moextend.util import content, files
from moextend.util.environment import environment

VERSIONS = ("moextend", "torch", "transformers", "peft")
"""Packages whose versions are recorded."""


@dataclass(frozen=True)
class Tried:
    """A trial with what is known of its runs."""

    trial: Trial
    states: tuple[State, ...]
    """State of the run of each seed."""
    scores: tuple[float | None, ...]
    """Score of each seed; None for a run that is not done."""

    @property
    def done(self) -> bool:
        """Whether it has a score of every seed."""
        return None not in self.scores

    @property
    def failed(self) -> bool:
        """Whether one of its runs failed."""
        return "failed" in self.states

    @property
    def score(self) -> float | None:
        """Mean over the seeds; None if one is missing."""
        known = [score for score in self.scores if score is not None]
        return fmean(known) if known and self.done else None


def tried(planned: Planned) -> dict[str, list[Tried]]:
    """Method -> its trials with their scores as they are now."""
    return {
        method: [_tried(trial, planned.runs(method, trial)) for trial in trials]
        for method, trials in planned.trials.items()
    }


def _tried(trial: Trial, runs: Sequence[Path]) -> Tried:
    states = tuple(read_status(run).state for run in runs)
    scores = tuple(
        score_of(RunDir(run)) if state == "done" else None for run, state in zip(runs, states, strict=True)
    )
    return Tried(trial, states, scores)


def score_of(run: RunDir) -> float | None:
    """The objective: mean accuracy on the validation items of all tuned tasks after the last one, in percent.

    It is ACC of the sequence of the tuned tasks, as in the tuning phases of Chaudhry et al., 2019 (arXiv 1812.00420)
    and Cha and Cho, 2024 (arXiv 2403.09066); where each is learned alone, every task counts after its own training.
    """
    cells, tasks, mode = run.cells(), run.config.stages, run.config.mode
    last = 1 if mode == "joint" else len(tasks)
    final = [
        cells.get((place if mode == "independent" else last, task)) for place, task in enumerate(tasks, 1)
    ]
    return metrics.average([cell.value if cell else None for cell in final])


def best(trials: Sequence[Tried]) -> Tried | None:
    """The trial with the highest score, of equal ones the first; None while one is missing.

    Failed trials count as tried.
    """
    if not all(one.done or one.failed for one in trials):
        return None
    return max((one for one in trials if one.done), key=lambda one: one.score or 0.0, default=None)


def extended(planned: Planned) -> Planned | None:
    """The search with one more trial of each method whose best one is at the edge of the values tried; None: no one's.

    A method of which a trial is missing waits.
    """
    more = {}
    for method, trials in tried(planned).items():
        if (chosen := best(trials)) is not None:
            values = {key: values_tried(trials, key) for key in chosen.trial.settings}
            if (trial := beyond(planned, method, chosen.trial.settings, values)) is not None:
                more[method] = [*planned.trials[method], trial]
    return replace(planned, trials={**planned.trials, **more}) if more else None


def values_tried(trials: Sequence[Tried], key: str) -> set[Any]:
    """Values of a setting in the trials that have a score; empty where one has no such setting."""
    done = [one.trial.settings for one in trials if one.done]
    return {each[key] for each in done} if all(key in each for each in done) else set()


def record(planned: Planned, method: str, trials: Sequence[Tried], chosen: Tried) -> Tuned:
    """What was chosen for a method, with how it was chosen."""
    search, packages = planned.search, environment()["packages"]
    given = planned.sequence.settings.get(planned.methods[method].method.name, {})
    assert chosen.score is not None, "the best trial is done"
    return Tuned(
        settings=chosen.trial.settings,
        fixed={key: value for key, value in given.items() if key not in chosen.trial.settings},
        score=round(chosen.score, 2),
        trials=len(trials),
        failed=sum(not one.done for one in trials),
        seeds=list(search.request.seeds),
        tasks=[stage.task for stage in planned.sequence.stages],
        validation=PERCENT,
        limit=planned.sequence.scoring.limit,
        steps=planned.sequence.train.steps,
        versions={name: version for name, version in packages.items() if name in VERSIONS and version},
        date=time.strftime("%Y-%m-%d"),
    )


KEY = "tuned"


def draft_of(sequence: SequenceSpec, workspace: Path) -> Draft:
    """The sequence to write to: its own file; of one of the package a copy in the workspace, which takes precedence."""
    path = sequence.path
    assert path is not None, "it is read from a file"
    packaged = path.parent == content.package_folder("registry").resolve()
    own = workspace / "registry" / path.name if packaged else path
    return Draft(own, (own if files.exists(own) else path).read_text(encoding="utf-8"))


def with_settings(draft: Draft, found: Mapping[str, Tuned]) -> Draft:
    """The draft with these methods' settings under `tuned`; those of other methods stay."""
    entries = {**draft.sequence.tuned, **found}
    records = {
        method: entry.model_dump(mode="json", exclude_defaults=True) for method, entry in entries.items()
    }
    return Draft(draft.path, set_value(draft.text, KEY, records, where=str(draft.path)))


CHOSEN = "chosen"
NOTE = (
    "score: mean accuracy on the validation items of all tuned tasks after the last of them, in percent, mean over the "
    "seeds. No test item is read (docs/tuning.md)."
)


def trials_table(planned: Planned, found: Mapping[str, Sequence[Tried]], best: Mapping[str, Tried]) -> Table:
    """One row a trial, a section a method."""
    seeds = planned.search.request.seeds
    columns = [
        Column("method", "method", numeric=False), Column("trial", "trial", spread=""),
        Column("settings", "settings", numeric=False),
        *(Column(f"seed_{seed}", f"seed {seed}", spread="") for seed in seeds),
        Column("score", "score", spread=""), Column("state", "", numeric=False),
    ]  # fmt: skip
    sections = [
        [
            [
                text(method), count(one.trial.number), text(shown(one.trial.settings)),
                *map(number, one.scores), number(one.score), text(state(one, best.get(method))),
            ]
            for one in trials
        ]
        for method, trials in found.items()
    ]  # fmt: skip
    tasks = ", ".join(stage.task for stage in planned.sequence.stages)
    name = planned.sequence.sequence
    return Table(
        f"{name}-trials", f"{name}: trials on validation items of {tasks}", columns, sections, [NOTE]
    )


def state(one: Tried, best: Tried | None) -> str:
    """What a trial is: chosen, or the state of its first run that is not done."""
    if best is not None and one.trial.number == best.trial.number:
        return CHOSEN
    return next((found for found in one.states if found != "done"), "")


def shown(settings: Mapping[str, Any]) -> str:
    """ "learning_rate=0.003, rank=8"."""
    return ", ".join(f"{key}={setting(value)}" for key, value in settings.items())


def records(found: Mapping[str, Sequence[Tried]], best: Mapping[str, Tried]) -> list[dict[str, Any]]:
    """The trials as JSON values."""
    return [
        {
            "method": method, "trial": one.trial.number, "settings": one.trial.settings, "scores": list(one.scores),
            "score": one.score, "states": list(one.states), "chosen": state(one, best.get(method)) == CHOSEN,
        }
        for method, trials in found.items()
        for one in trials
    ]  # fmt: skip


def warnings(method: str, trials: Sequence[Tried], best: Tried) -> list[str]:
    """Names failed trials, and chosen numbers at the end of those tried: better ones may lie beyond."""
    failed = sum(one.failed for one in trials)
    found = [f"{method}: chosen without {counted(failed, 'failed trial')}."] if failed else []
    for key, value in best.trial.settings.items():
        tried = values_tried(trials, key)
        if len(tried) > 1 and all(type(one) in (int, float) for one in tried):
            ends = {min(tried): "smallest", max(tried): "largest"}
            if value in ends:
                found.append(
                    f"{method}: {key}={setting(value)} is at the edge, the {ends[value]} of {len(tried)} values tried. "
                    f"Try further ones: a larger --budget, or --method NAME:{key}=VALUE."
                )
    return found


def line(method: str, entry: Tuned) -> str:
    """What was chosen for a method, in one line."""
    return (
        f"{method}: {shown(entry.settings)} ({entry.score:.1f} on validation items, best of {entry.trials})"
    )
