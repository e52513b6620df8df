"""Commits of the hub that a run opens: resolved at the first use, recorded in its facts, and opened ever after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.data import hub_revision
from moextend.bench.run.records import BASE, RunFacts, encoder_of
from moextend.bench.run.rundir import RunDir
from moextend.bench.score.text import text_commits
from moextend.bench.task import TaskSpec
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend.bench.sequence import Base


def pinned_task(task: TaskSpec, facts: RunFacts) -> TaskSpec:
    """The task with its data at the recorded commits; the task itself if none is recorded."""
    if task.data is not None and task.task in facts.revisions:
        data = task.data.model_copy(update={"revision": facts.revisions[task.task]})
        return task.model_copy(update={"data": data})
    if task.lm_eval is not None and task.task in facts.text_data:
        text = task.lm_eval.model_copy(update={"revisions": facts.text_data[task.task]})
        return task.model_copy(update={"lm_eval": text})
    return task


def pin_data(run: RunDir, tasks: dict[str, TaskSpec], workspace: Path) -> None:
    """Records the commits of hub data that the run opens for the first time, and pins `tasks` to them."""
    known = recorded(run).revisions
    found = {name: hub_revision(task, workspace) for name, task in tasks.items() if name not in known}
    new = {name: commit for name, commit in found.items() if commit is not None}
    if new:
        run.write_facts(revisions={**known, **new})
        tasks.update({name: pinned_task(tasks[name], recorded(run)) for name in new})


def record_commits(run: RunDir, task: TaskSpec, workspace: Path) -> None:
    """Records the commits of a text task that has just been scored for the first time in this process."""
    known = recorded(run).text_data
    if task.kind == "text" and task.task not in known and (found := text_commits(task, workspace)):
        run.write_facts(text_data={**known, task.task: found})


def base_revision(run: RunDir, base: Base, workspace: Path) -> str | None:
    """Revision of the base that the run opens: its recorded commit; at the first use that of now, which is recorded."""
    from moextend.model import sources

    name = sources.find(base.found(workspace))
    if isinstance(name, Path):
        return base.revision
    known = recorded(run).models.get(BASE, {}).get(name)
    found = known or sources.commit(name, base.revision)
    if found is None:
        return base.revision
    if known is None:
        _record_models(run, BASE, {name: found})
    return found


@contextmanager
def encoder_revisions(run: RunDir, encoders: Mapping[str, str]) -> Iterator[None]:
    """Context in which encoders are loaded at the run's recorded commits; new ones are recorded.

    Args: encoders: modality -> encoder.
    """
    from moextend.model import sources
    from moextend.model.encoders import locate

    found = {modality: locate(modality, name) for modality, name in encoders.items()}
    remote = {modality: where for modality, where in found.items() if where.remote}
    if not remote:
        yield
        return
    known = {modality: recorded(run).models.get(encoder_of(modality), {}) for modality in remote}
    with sources.pinned({name: sha for commits in known.values() for name, sha in commits.items()}) as opened:
        yield
    named = {where.repository: modality for modality, where in remote.items() if where.repository}
    for modality in remote:  # repositories of open_clip and timm are known only after loading
        own = {name: sha for name, sha in opened.items() if named.get(name, "image") == modality}
        if own.keys() - known[modality].keys():
            _record_models(run, encoder_of(modality), {**own, **known[modality]})


def _record_models(run: RunDir, what: str, commits: Mapping[str, str]) -> None:
    run.write_facts(models={**recorded(run).models, what: dict(commits)})


def recorded(run: RunDir) -> RunFacts:
    """Facts of a run; empty if they are damaged, as the run then makes them again."""
    try:
        return run.facts()
    except InputError:
        return RunFacts()
