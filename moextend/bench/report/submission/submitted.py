"""Runs that somebody submits, what they are compared with, and how a check names what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moextend.bench import methods
from moextend.bench.checkpoints import Checkpoint
from moextend.bench.report.collect import Result
from moextend.bench.report.verify import Check
from moextend.bench.run.config import without_notes
from moextend.bench.run.plan import Request, resolve, resolve_scored
from moextend.bench.run.rundir import RunConfig
from moextend.errors import MoextendError, listed
from moextend.util import content, files

SHOWN = 3
"""Problems of a check, and runs of a problem, that the table names."""
Problem = tuple[str, str]
"""What is wrong, and the run."""


@dataclass(frozen=True)
class Submission:
    """Runs of packs, and what they are compared with."""

    results: list[Result]
    damaged: list[str]
    """Runs that cannot be read, and why."""
    published: list[Result]
    workspace: Path

    @cached_property
    def _here(self) -> dict[tuple[str, int, bool], RunConfig | str]:
        return {}

    def here(self, result: Result) -> RunConfig | str:
        """The config that a run of its sequence has now in this workspace; or why it has none."""
        key = (str(result.config.sequence["sequence"]), result.config.seed, result.config.scored)
        if key not in self._here:
            self._here[key] = self._resolved(*key)
        return self._here[key]

    def _resolved(self, name: str, seed: int, scored: bool) -> RunConfig | str:
        if name not in content.names("registry", self.workspace):
            return f"no sequence '{name}' is known here"
        request = Request(self.workspace, sequence=name, methods=(methods.named("base"),), seeds=(seed,))
        try:
            if scored:
                return resolve_scored(request, "submitted", [Checkpoint(model="base")])
            return resolve(request)[0]
        except MoextendError as error:
            return f"sequence '{name}': {error.what.rstrip('.')}"

    @cached_property
    def _published(self) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = {}
        for other in self.published:
            found.setdefault(experiment_of(other), []).append(other)
        return found

    def alike(self, result: Result) -> list[Result]:
        """The published runs of the same tasks, base and settings of the sequence."""
        return self._published.get(experiment_of(result), [])


def experiment_of(result: Result) -> str:
    """Digest of what the runs of a table share."""
    return files.digest(without_notes(result.config.experiment()))


def made(name: str, problems: Iterable[Problem], done: str, hint: str, *, unchecked: str = "") -> Check:
    """A check, of whose problems each is named once with its runs."""
    runs: dict[str, list[str]] = {}
    for what, run in problems:
        runs.setdefault(what, []).append(run)
    named = tuple(f"{some(own)}: {what}" if any(own) else what for what, own in runs.items())
    return Check(name, done, named, hint if named else "", unchecked)


def some(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    if not names:
        return ""
    known = list(dict.fromkeys(names))
    more = [f"{len(known) - SHOWN} more"] if len(known) > SHOWN else []
    return listed([*known[:SHOWN], *more])
