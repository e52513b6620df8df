"""The plug-ins and data of a run, and whether they changed since it began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench import scorers
from moextend.bench.data import data_digest
from moextend.bench.data.source import find_source, is_generated
from moextend.bench.plugins import PACKAGE, Source, changed
from moextend.bench.run.revisions import recorded
from moextend.bench.run.rundir import RunDir, changed_since
from moextend.errors import InputError, RunConflict

if TYPE_CHECKING:
    from moextend.bench.data.open import SplitName
    from moextend.bench.task import TaskSpec


def plugins_of(run: RunDir) -> dict[str, Source]:
    """Plug-ins that a run uses, by kind and name; imports them."""
    config = run.config
    found = {"method": config.parsed_method().source}
    for name in config.tasks:
        scorer = config.tasks[name].get("scorer")
        if config.tasks[name].get("kind") != "text" and scorer:
            found[f"scorer {scorer}"] = scorers.source_of(scorer, config.workspace)
    return {what: source for what, source in found.items() if source != PACKAGE}


def refuse_changed_plugins(run: RunDir) -> dict[str, dict[str, str]]:
    """Raises RunConflict if a plug-in changed since the run began; returns the records of all plug-ins."""
    known, now = recorded(run).plugins, plugins_of(run)
    problem = changed(known, now)
    if problem is not None:
        raise RunConflict(
            problem,
            where=str(run.folder),
            hint="Restore the file, use another --runs folder, or remove this one.",
        )
    return {**known, **{what: source.record() for what, source in now.items()}}


Digests = dict[tuple[str, str], str | None]
"""(Task as JSON, split) -> digest of its data now; None for those that are not compared."""


def refuse_other_data(run: RunDir, digests: Digests) -> None:
    """Raises RunConflict if files of data changed that a done run has used.

    Data that cannot be read now are not compared, nor those of runs from a pack. `digests` keeps what was computed.
    """
    known = {} if run.left_out else run.facts().data
    for name, split in splits_of({name: known[name] for name in known if name in run.config.tasks}):
        task = run.config.task_spec(name)
        key = (task.model_dump_json(), split)
        if key not in digests:
            digests[key] = _local_digest(task, split, run.config.workspace)
        if digests[key] not in (None, known[name][split]):
            raise data_conflict(run, name, split)


def splits_of(data: Mapping[str, Mapping[str, str]]) -> list[tuple[str, SplitName]]:
    """(task, split) of all digests in `RunFacts.data`."""
    splits: tuple[SplitName, ...] = ("train", "test")
    return [(name, split) for name, known in data.items() for split in splits if split in known]


def data_conflict(run: RunDir, name: str, split: str) -> RunConflict:
    """The error for data that a run has used, and that changed."""
    return changed_since(run, f"the {split} data of task '{name}'", restore="the data")


def _local_digest(task: TaskSpec, split: SplitName, workspace: Path) -> str | None:
    """Digest of data in files of the user; None for data of the hub or the generated world, or if they are gone."""
    if task.data is None or is_generated(task):
        return None
    try:
        if find_source(task.data, task.folder(), workspace, where=task.task).hub is not None:
            return None
        return data_digest(task, split, workspace)
    except InputError:
        return None
