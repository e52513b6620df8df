"""The plug-ins of a run, and whether they changed since it began."""

from __future__ import annotations

from moextend.bench import scorers
from moextend.bench.plugins import PACKAGE, Source, changed
from moextend.bench.run.revisions import recorded
from moextend.bench.run.rundir import RunDir
from moextend.errors import RunConflict


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
