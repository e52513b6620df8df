"""Run folders -> results -> experiments, each of which is one table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from moextend.bench import methods
from moextend.bench.data.source import WORLD
from moextend.bench.report.table import Value, named
from moextend.bench.run.complete import lacking_scores, names_of, unproved
from moextend.bench.run.config import JOINT, differences, without_notes
from moextend.bench.run.items import NAME as ITEMS
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import RunFacts, StageCost, State, Status
from moextend.bench.run.rundir import COST, PARITY, Cell, Key, RunConfig, RunDir
from moextend.bench.score.served.records import Parity
from moextend.bench.scorers import shows
from moextend.errors import InputError, counted
from moextend.util import files
from moextend.util.foreign import explained

UNFINISHED = "*"


@dataclass(frozen=True)
class Result:
    """What one run has computed."""

    run: RunDir
    config: RunConfig
    state: State
    cells: dict[Key, Cell]
    facts: RunFacts
    costs: dict[int, StageCost] = field(default_factory=dict)
    """Stage -> what it took."""
    lacks: list[str] = field(default_factory=list)
    """Cells and predictions that a run which says it is done does not have."""
    bare: bool = False
    """Whether the run is from a pack without predictions."""
    parities: dict[str, Parity] = field(default_factory=dict)
    """Digest -> parity check of a server that scored cells."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.run.folder.name

    @property
    def has_items(self) -> bool:
        """Whether the scores of single items are here: by the predictions, or in a pack without them."""
        return not self.bare or (self.run.folder / ITEMS).is_file()

    @property
    def tasks(self) -> list[str]:
        """The tasks that are learned, in learning order."""
        return self.config.stages

    @property
    def text(self) -> list[str]:
        """The text tasks."""
        return self.config.retention

    @property
    def stage_names(self) -> list[str]:
        """The names of the stages: their tasks, or what stands for all tasks at once."""
        return [JOINT] if self.config.mode == "joint" else self.tasks

    @cached_property
    def last(self) -> int:
        """The last stage: T, or 1 of a joint run, which learns all at once."""
        return len(self.stage_names)

    @property
    def given(self) -> bool:
        """Whether the method is given the task at inference."""
        return self.facts.task_identity == "given"

    def row(self, stage: int, tasks: Sequence[str]) -> list[float | None]:
        """Scores of `tasks` after `stage`; None where one was not scored."""
        cells = [self.cells.get((stage, task)) for task in tasks]
        return [cell.value if cell else None for cell in cells]

    @property
    def lacking_costs(self) -> list[str]:
        """Costs of stages that a done run does not have; scores and comparisons do without them."""
        names = enumerate(self.stage_names, 1) if self.state == "done" else ()
        return [f"{COST} of stage {stage} ({name})" for stage, name in names if stage not in self.costs]

    def note_damage(self, task: str, error: Exception) -> None:
        """Notes that the predictions of a task cannot be read."""
        part = ITEMS if self.bare else f"the predictions of {task}"
        what = f"{part} (damaged: {explained(error).what})"
        if what not in self.lacks:
            self.lacks.append(what)

    @property
    def matrix(self) -> list[list[float | None]]:
        """A[stage][task] of the learned tasks; see metrics."""
        return [self.row(stage, self.tasks) for stage in range(len(self.tasks) + 1)]


@dataclass
class Experiment:
    """Runs that share tasks, base, training and scoring, so that they may stand in one table."""

    shared: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """"lora-s1 (running)": runs that are not done, damaged, or copies of others."""
    copies: list[str] = field(default_factory=list)
    """Those of `left_out` whose results are here from another folder."""
    differs: str = ""
    """How it differs from the first experiment of the same sequence, where it is another one."""
    is_variant: bool = False
    """Whether there are other experiments of the same sequence."""

    @property
    def name(self) -> str:
        """The sequence."""
        return str(self.shared.get("sequence", {}).get("sequence", ""))

    @cached_property
    def variant(self) -> str:
        """A digest of its settings, which tells variants of one sequence apart whatever else is reported."""
        return files.digest(self.shared)[:8]

    @property
    def label(self) -> str:
        """The sequence; with `variant` where there are several of it."""
        return f"{self.name} [{self.variant}]" if self.is_variant else self.name

    def of(self, mode: str) -> list[Result]:
        """The results of a mode."""
        return [result for result in self.results if result.config.mode == mode]


def collect(runs: Sequence[RunDir], *, unfinished: bool = False) -> list[Experiment]:
    """The experiments that the runs belong to, first one first; runs that are not done only if asked for.

    A run counts once: a copy of its folder is left out. A run whose files are damaged is left out, too.
    """
    found: dict[str, Experiment] = {}
    damaged, seen = list[str](), dict[tuple[str, str], RunDir]()
    known = list[tuple[RunDir, RunConfig, Status]]()
    for run in runs:
        try:
            known.append((run, run.config, read_status(run.folder)))
        except Exception as error:
            damaged.append(damaged_run(run, error))
    for run, config, status in sorted(known, key=_is_copy):
        shared = config.experiment()
        digest = files.digest(without_notes(shared))
        experiment = found.setdefault(digest, Experiment(shared))
        first = seen.get((digest, config.digest))
        if first is not None:
            what = "a copy of" if run.id and run.id == first.id else "the same run as"
            experiment.copies.append(f"{run.folder} ({what} {first.folder})")
            experiment.left_out.append(experiment.copies[-1])
        elif status.state == "done" or unfinished:
            try:
                experiment.results.append(_result(run, config, status))
                seen[digest, config.digest] = run
            except Exception as error:
                experiment.left_out.append(damaged_run(run, error))
        else:
            why = f": {status.error.what}" if status.state == "failed" and status.error else ""
            experiment.left_out.append(f"{run.folder.name} ({status.state}{why})")
    experiments = _in_order(_by_settings(found), runs)
    if damaged:
        experiments = experiments or [Experiment({})]
        shown = next((experiment for experiment in experiments if experiment.results), experiments[0])
        shown.left_out += damaged
    _tell_apart(experiments)
    return experiments


def _by_settings(experiments: Mapping[str, Experiment]) -> dict[str, Experiment]:
    """The experiments, where runs of a method with other settings than most of its runs have one of their own."""
    found: dict[str, Experiment] = {}
    for digest, experiment in experiments.items():
        found[digest] = experiment
        alike: dict[tuple[str, str], dict[str, list[Result]]] = {}
        for result in experiment.results:
            own = alike.setdefault((result.config.method, result.config.mode), {})
            own.setdefault(files.digest(_settings(result)), []).append(result)
        apart = [sorted(own.values(), key=len, reverse=True) for own in alike.values() if len(own) > 1]
        for place in range(max(map(len, apart), default=0)):
            groups = [own[place] for own in apart if place < len(own)]
            settings = {group[0].config.method: _settings(group[0]) for group in groups}
            shared = {
                **experiment.shared,
                "sequence": {**experiment.shared["sequence"], "settings": settings},
            }
            if place == 0:
                experiment.shared = shared
                continue
            moved = {result.run.folder for group in groups for result in group}
            found[files.digest(shared)] = Experiment(
                shared, [result for result in experiment.results if result.run.folder in moved]
            )
            experiment.results = [result for result in experiment.results if result.run.folder not in moved]
    return found


def _settings(result: Result) -> dict[str, Any]:
    """All settings of the method of a run, or those that were set if the method cannot be imported."""
    try:
        return result.config.parsed_method().config.model_dump(mode="json")
    except Exception:
        return dict(result.config.sequence.get("settings") or {})


def damaged_run(run: RunDir, error: Exception) -> str:
    """Says that a run is left out. One damaged file, whatever is wrong with it, hides no other run."""
    return f"{run.folder.name} (damaged: {explained(error)})"


def _is_copy(known: tuple[RunDir, RunConfig, Status]) -> tuple[bool, bool]:
    """Of several equal runs the first counts: one that is done, in a folder with the name that its config gives."""
    run, config, status = known
    return status.state != "done", run.folder.name != config.slug


def _in_order(found: dict[str, Experiment], runs: Sequence[RunDir]) -> list[Experiment]:
    """The experiments, and the results of each, in the order of the runs."""
    place = {run.folder: number for number, run in enumerate(runs)}
    for experiment in found.values():
        experiment.results.sort(key=lambda result: place[result.run.folder])
    return list(found.values())


def _result(run: RunDir, config: RunConfig, status: Status) -> Result:
    cells, bare = run.cells(left_out=status.left_out), "predictions" in status.left_out
    lacks = lacking_scores(run, cells) if status.state == "done" else []
    served = any(cell.backend for cell in cells.values())
    parities = run.parities() if served else {}
    return Result(run, config, status.state, cells, run.facts(), run.costs(), lacks, bare, parities)


def refuse_unproved(experiments: Sequence[Experiment]) -> None:
    """Raises InputError if a server scored cells of a run without a parity check."""
    for result in (result for experiment in experiments for result in experiment.results):
        alone = unproved(result.run, result.cells.values())
        if alone:
            raise InputError(
                f"{counted(len(alone), 'cell')} of {result.name} ({alone[0].task} after stage {alone[0].stage}, ...) "
                f"scored by a server without a parity check in {PARITY}, so they cannot be compared with others.",
                where=str(result.run.folder),
                hint="Run the same command again: it makes the check and keeps the answers. Or name only "
                "the other runs.",
            )


def scale_notes(results: Sequence[Result], tasks: Collection[str] | None = None) -> list[str]:
    """What the scores of `tasks` (all by default) are, where the name of their scorer says otherwise."""
    cells = [
        cell for result in results for cell in result.cells.values() if tasks is None or cell.task in tasks
    ]
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        found.setdefault(cell.scorer, {})[cell.task] = None
    return [
        f"{', '.join(own)}: {what} ({scorer}); the rate itself is among the readings."
        for scorer, own in found.items()
        if (what := shows(scorer))
    ]


def lacking_notes(results: Sequence[Result]) -> list[str]:
    """What runs that say they are done do not have: one note for those without predictions, one for the others."""
    bare = [result.name for result in results if result.bare]
    lacks = [(result.name, [*result.lacks, *result.lacking_costs]) for result in results]
    known = [f"{name} lacks {names_of(parts)}" for name, parts in lacks if parts]
    which = "all runs" if len(bare) == len(results) else ", ".join(bare)
    notes = [f"Without predictions, so scores are not checked against answers: {which}."] if bare else []
    again = "The same bench run makes it again" + (
        "; runs from a pack are removed (bench remove-run) and unpacked again." if bare else "."
    )
    notes += [f"Not complete: {'. '.join(known)}. {again}"] if known else []
    return notes


def data_notes(results: Sequence[Result]) -> list[str]:
    """One note of the runs whose data are not those of most runs. Generated data have versions and are not compared."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for result in results:
        for task, splits in result.facts.data.items():
            data = result.config.tasks.get(task, {}).get("data") or {}
            if str(data.get("path", "")).startswith(WORLD):
                continue
            for split, digest in splits.items():
                found.setdefault((task, split), {}).setdefault(digest, []).append(result.name)
    differ: dict[str, list[str]] = {}
    for (task, split), runs in found.items():
        for names in sorted(runs.values(), key=len, reverse=True)[1:]:
            differ.setdefault(", ".join(names), []).append(f"{task} ({split})")
    named = [f"{', '.join(tasks)} of {names}" for names, tasks in differ.items()]
    return [f"Other data than those of the other runs: {'; '.join(named)}."] if named else []


def run_notes(experiment: Experiment) -> list[str]:
    """The runs that are not finished, with other data, or left out and why; at most one note of each."""
    marked = [result.name for result in experiment.results if result.state != "done"]
    unfinished = [f"{UNFINISHED}: not finished: {', '.join(marked)}."] if marked else []
    left_out = [f"Left out: {'; '.join(experiment.left_out)}."] if experiment.left_out else []
    return [*unfinished, *data_notes(experiment.results), *left_out]


def some(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Those with a result, of which the first also names the runs of the others; InputError if there is none.

    InputError also for cells of a server whose parity with transformers is not shown.
    """
    refuse_unproved(experiments)
    kept = [experiment for experiment in experiments if experiment.results]
    if not kept:
        waiting = [name for experiment in experiments for name in experiment.left_out]
        raise InputError(
            f"no run is done{': ' + ', '.join(waiting) if waiting else ''}.",
            hint="Run first: moextend bench run, or "
            + ("add --unfinished." if waiting else "name the workspace of the runs (--workspace)."),
        )
    others = [
        f"{name} of {experiment.name}"
        for experiment in experiments
        if not experiment.results
        for name in experiment.left_out
    ]
    return [replace(kept[0], left_out=[*kept[0].left_out, *others]), *kept[1:]] if others else kept


Groups = dict[tuple[str, str], list[Result]]
"""(method, order) -> its runs."""


def grouped(results: Sequence[Result]) -> Groups:
    """The runs of each method and order."""
    groups: Groups = {}
    for result in results:
        groups.setdefault((result.config.method, result.config.order), []).append(result)
    return groups


def row_name(group: Sequence[Result], *, before: str = "", mark: str = "") -> Value:
    """The cell that names a group of runs: its method with a mark, and its order."""
    config = group[0].config
    order = "" if config.order == "given" else f" ({config.order})"
    return named(config.method, before=before, after=f"{mark}{order}", given=group[0].given)


def unfinished_mark(group: Sequence[Result]) -> str:
    """What stands behind the name of runs that are not all done."""
    return "" if all(result.state == "done" for result in group) else UNFINISHED


def base_runs(experiment: Experiment) -> list[Result]:
    """One run per seed with row 0, which is the same for all methods."""
    by_seed = {
        result.config.seed: result
        for result in reversed(experiment.results)
        if (0, result.tasks[0]) in result.cells
    }
    return list(by_seed.values())


def has_base_row(experiment: Experiment) -> bool:
    """Whether the method that learns nothing is among the runs, with a row of its own."""
    return any(methods.role_of(result.config.method) == "base" for result in experiment.of("sequence"))


def _tell_apart(experiments: list[Experiment]) -> None:
    first: dict[str, Experiment] = {}
    taken = set[tuple[str, str]]()
    for experiment in experiments:
        other = first.setdefault(experiment.name, experiment)
        if other is not experiment:
            other.is_variant = experiment.is_variant = True
            found = differences(other.shared, experiment.shared)[:3]
            differs = "; ".join(f"{place} {new} instead of {old}" for place, old, new in found)
            more = f" [{experiment.variant}]" if (experiment.name, differs) in taken else ""
            taken.add((experiment.name, differs))
            experiment.differs = differs + more
