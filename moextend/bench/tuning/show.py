"""The trials of a tuning as a table and as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moextend.bench.report.table import Column, Table, count, number, text
from moextend.bench.report.views.forgetting import setting
from moextend.bench.tuned import Tuned
from moextend.bench.tuning.results import Tried
from moextend.bench.tuning.trials import Planned
from moextend.errors import counted

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
        tried = {one.trial.settings.get(key, value) for one in trials if one.done}
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
