"""Run folders -> results -> experiments, each of which is one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from moextend.bench import methods, metrics
from moextend.bench.report.table import Table, Value, named
from moextend.bench.run.complete import lacking_facts, lacking_scores, names_of, unproved
from moextend.bench.run.config import JOINT, differences, without_notes
from moextend.bench.run.inputs import of_cells, of_seeds, setting_parts, weights_parts
from moextend.bench.run.items import NAME as ITEMS
from moextend.bench.run.items import PackedItems, read_items
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import RunFacts, StageCost, State, Status
from moextend.bench.run.rundir import COST, PARITY, Cell, Key, RunConfig, RunDir
from moextend.bench.score.records import Parity
from moextend.bench.scorers import shows
from moextend.bench.task import Mode
from moextend.errors import InputError, counted, listed
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
    environments: list[dict[str, Any]] = field(default_factory=list)
    """What the run was made with: see `RunDir.environments`."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.run.folder.name

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the method as recorded, and those that were not: of its config, with the defaults of now."""
        try:
            known = self.config.method_spec.config.model_dump(mode="json")
        except Exception:  # a plug-in that is not here
            known = dict(
                (self.config.sequence.get("settings") or {}).get(self.config.method.partition(":")[0], {})
            )
        return {**known, **self.facts.settings}

    @cached_property
    def made_of(self) -> dict[str, str]:
        """Part -> digest of what made the scores, besides the config; the method is named where a part is its own."""
        own = (
            self.config.method
            if self.config.mode == "sequence"
            else f"{self.config.method} ({self.config.mode})"
        )
        parts = {part.replace("the method", own): one for part, one in setting_parts(self.settings).items()}
        base = next((cell.weights for (stage, _), cell in self.cells.items() if stage == 0), None)
        return {
            **parts,
            **(weights_parts(base) if base else {}),
            **of_seeds(of_cells(self.cells.values()), self.config),
        }

    @property
    def has_items(self) -> bool:
        """Whether the scores of single items are here: by the predictions, or in a pack without them."""
        return not self.bare or (self.run.folder / ITEMS).is_file()

    @cached_property
    def packed(self) -> PackedItems:
        """The scores of single items of a run from a pack without predictions."""
        return read_items(self.run) or PackedItems()

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
    def text_ends(self) -> tuple[list[float | None], list[float | None]]:
        """Scores of the text tasks of the base and after the last stage."""
        return self.row(0, self.text), self.row(self.last, self.text)

    @cached_property
    def summary(self) -> dict[str, float | None]:
        """The metrics of the run, by name."""
        found = run_metrics(self.matrix, self.row(self.last, self.tasks), *self.text_ends)
        return {name: value if measures(self.config.mode, name) else None for name, value in found.items()}

    @cached_property
    def text_untouched(self) -> bool:
        """Whether nothing learned can have answered the text tasks: the run says so, or the base's weights answered."""
        if self.facts.text_untouched is not None:
            return self.facts.text_untouched
        return self._answered_by_base(self.text) and not self._answered_by_base(self.tasks)

    def _answered_by_base(self, tasks: Sequence[str]) -> bool:
        """Whether the weights that answered these tasks at the end are known to be those of row 0."""
        ends = [(self.cells.get((0, task)), self.cells.get((self.last, task))) for task in tasks]
        return bool(ends) and all(a and b and a.weights == b.weights != "" for a, b in ends)

    @property
    def lacking_costs(self) -> list[str]:
        """Costs of stages that a done run does not have; scores and comparisons do without them."""
        names = enumerate(self.stage_names, 1) if self.state == "done" and not self.config.scored else ()
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


TITLES = {
    "la": "LA", "acc": "ACC", "bwt": "BWT", "fm": "FM", "fwt": "FWT", "text_change": "Δ text", "text_after": "text",
    "maa": "MAA", "bwt_t": "BWT/T", "fm_max_all": "FM (max. incl. last)", "worst_case": "worst case",
    "text_before": "text before", "text_retention": "text kept %",
}  # fmt: skip
"""Metric of `run_metrics` -> its title in tables."""
SIGNED = ("bwt", "bwt_t", "fm", "fwt", "text_change")
"""Metrics that are shown with a sign."""
COMPARED = ("la", "acc", "bwt", "fm", "fwt", "text_change")
"""Metrics in which methods are compared."""


BOUND_METRICS: dict[Mode, tuple[str, ...]] = {
    "joint": ("acc", "zero_shot", "text_before", "text_after", "text_change", "text_retention"),
    "independent": ("la", "zero_shot", "text_before"),
}
"""What the bounds measure: a joint run has one stage, an independent one has no last model."""


def measures(mode: Mode, metric: str) -> bool:
    """Whether runs of a mode have a metric."""
    return metric in BOUND_METRICS.get(mode, (metric,))


def run_metrics(
    a: metrics.Matrix,
    final: Sequence[float | None],
    before: Sequence[float | None],
    after: Sequence[float | None],
) -> dict[str, float | None]:
    """The metrics of a run, by name, from its matrix, its last row, and its text scores before and after all stages."""
    retention = metrics.text_retention(before, after)
    return {
        "la": metrics.mft(a),
        "acc": metrics.average(final),
        "maa": metrics.maa(a),
        "bwt": metrics.bwt(a),
        "bwt_t": metrics.bwt(a, divisor="T"),
        "fm": metrics.forgetting(a),
        "fm_max_all": metrics.forgetting(a, variant="max-all"),
        "worst_case": metrics.worst_case_acc(a),
        "fwt": metrics.fwt(a),
        "zero_shot": metrics.zero_shot(a),
        "text_before": metrics.average(before),
        "text_after": metrics.average(after),
        "text_change": metrics.text_change(before, after),
        "text_retention": None if retention is None else 100 * retention,
    }


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
    apart: list[str] = field(default_factory=list)
    """"lora-s1 (test data of task 'pets')": runs with the same config in another table, and what they differ in."""
    is_variant: bool = False
    """Whether there are other experiments of the same sequence."""
    own: str = ""
    """Which of its runs are those of the workspace, where others stand beside them."""

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
        key = key_of(config)
        experiment = found.setdefault(key[0], Experiment(config.experiment()))
        first = seen.get(key)
        if first is not None:
            what = "a copy of" if run.id and run.id == first.id else "the same run as"
            experiment.copies.append(f"{run.folder} ({what} {first.folder})")
            experiment.left_out.append(experiment.copies[-1])
        elif status.state == "done" or unfinished:
            try:
                experiment.results.append(_result(run, config, status))
                seen[key] = run
            except Exception as error:
                experiment.left_out.append(damaged_run(run, error))
        else:
            why = f": {status.error.what}" if status.state == "failed" and status.error else ""
            experiment.left_out.append(f"{run.folder.name} ({status.state}{why})")
    for experiment in found.values():
        _name_orders(experiment)
    experiments = _in_order(_by_inputs(found), runs)
    if damaged:
        experiments = experiments or [Experiment({})]
        shown = next((experiment for experiment in experiments if experiment.results), experiments[0])
        shown.left_out += damaged
    _tell_apart(experiments)
    return experiments


def key_of(config: RunConfig) -> tuple[str, str]:
    """Digests of the experiment and of the run: equal for two configs of one run."""
    same = files.digest({**config.identity(), "order": ""})  # the stages are in their order
    return files.digest(without_notes(config.experiment())), same


def _name_orders(experiment: Experiment) -> None:
    """Gives runs with the same order of the stages the same name of it, that of most meaning."""
    names: dict[tuple[Any, ...], str] = {}
    for config in sorted(
        (result.config for result in experiment.results), key=lambda one: (len(one.order), one.order)
    ):
        names.setdefault(config.visits, config.order)
    experiment.results = [
        result
        if result.config.order == (order := names[result.config.visits])
        else replace(result, config=result.config.model_copy(update={"order": order}))
        for result in experiment.results
    ]


def _by_inputs(experiments: Mapping[str, Experiment]) -> dict[str, Experiment]:
    """The experiments, divided so that no part of what made the numbers of a table differs among its runs.

    A part that a run did not record divides nothing. What most runs of a method have comes first.
    """
    found: dict[str, Experiment] = {}
    for digest, experiment in experiments.items():
        found[digest] = experiment
        (first, experiment.results), *others = alike(experiment.results) or [({}, [])]
        for parts, results in others:
            own = {part: one for part, one in parts.items() if first.get(part, one) != one}
            experiment.apart += [f"{', '.join(result.name for result in results)} ({listed([*own][:3])})"]
            experiment.shared = {**experiment.shared, **{part: first[part] for part in own}}
            shared = {**experiment.shared, **own}
            found[files.digest(shared)] = Experiment(shared, results)
    return found


def alike(results: Sequence[Result]) -> list[tuple[dict[str, str], list[Result]]]:
    """Groups of runs of which no part differs, each with all its parts."""
    common = Counter(frozenset(result.made_of.items()) for result in results)
    groups: list[tuple[dict[str, str], list[Result]]] = []
    for result in sorted(results, key=lambda one: -common[frozenset(one.made_of.items())]):
        for parts, alike in groups:
            if all(parts.get(part, one) == one for part, one in result.made_of.items()):
                parts.update(result.made_of)
                alike.append(result)
                break
        else:
            groups.append((dict(result.made_of), [result]))
    return groups


def damaged_run(run: RunDir, error: Exception) -> str:
    """Says that a run is left out. One damaged file, whatever is wrong with it, hides no other run."""
    return f"{run.folder.name} (damaged: {explained(error)})"


def without_damaged(tables: list[Table], damaged: Sequence[str], where: str) -> list[Table]:
    """The tables of a view with a note of the runs whose records are damaged; InputError if nothing else is left."""
    if damaged and not tables:
        raise InputError(f"no run is complete: {'; '.join(damaged)}.", where=where, hint="Run again.")
    left_out = [f"Left out: {'; '.join(damaged)}."] if damaged else []
    return [*tables[:-1], tables[-1].noted(*left_out)] if tables else []


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
    facts, done = run.facts(), status.state == "done"
    lacks = [*lacking_scores(run, cells), *lacking_facts(config, facts)] if done else []
    served = any(cell.backend for cell in cells.values())
    parities = run.parities() if served else {}
    environments = run.config_file.environments
    result = Result(
        run, config, status.state, cells, facts, run.costs(), lacks, bare, parities, environments,
    )  # fmt: skip
    result.made_of  # noqa: B018 (raises for cells that contradict each other)
    return result


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
    keep = "Packed without predictions, so scores are not checked against answers (bench pack --predictions keeps them)"
    notes = [f"{keep}: {which}."] if bare else []
    again = "The same command makes it again" + (
        "; runs from a pack are removed and unpacked again." if bare else "."
    )
    notes += [f"Not complete: {'. '.join(known)}. {again}"] if known else []
    return notes


def input_notes(experiment: Experiment) -> list[str]:
    """The runs that were made of something else, and what differs."""
    notes = []
    if experiment.apart:
        notes.append(f"In a table of their own, made of something else: {'; '.join(experiment.apart)}.")
    if experiment.differs:
        notes.append(f"Not made of the same as the first table of {experiment.name}: {experiment.differs}.")
    return notes


def run_notes(experiment: Experiment) -> list[str]:
    """The runs that are of packs, not finished, made of something else, or left out and why."""
    marked = [result.name for result in experiment.results if result.state != "done"]
    unfinished = [f"{UNFINISHED}: not finished: {', '.join(marked)}."] if marked else []
    left_out = [f"Left out: {'; '.join(experiment.left_out)}."] if experiment.left_out else []
    return [*filter(None, [experiment.own]), *unfinished, *input_notes(experiment), *left_out]


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


BOUND_WORDS: dict[Mode, str] = {"joint": "joint", "independent": "each alone"}
"""Mode of bounds -> how tables call it."""


def called(config: RunConfig) -> str:
    """How `--method` and `--baseline` name a run: its method, or a bound with it, "joint:full-ft"."""
    bound = next((name for name, mode in methods.BOUNDS.items() if mode == config.mode), None)
    return f"{bound}:{config.method}" if bound else config.method


def before_method(mode: Mode) -> str:
    """What stands before the method in the name of a row: "joint, "; "" of runs in sequence."""
    return f"{BOUND_WORDS[mode]}, " if mode in BOUND_WORDS else ""


def row_name(group: Sequence[Result], *, before: str = "") -> Value:
    """The cell that names a group of runs: its mode, method and order, with a mark if not all are done."""
    config = group[0].config
    mark = "" if all(result.state == "done" for result in group) else UNFINISHED
    order = "" if config.order == "given" else f" ({config.order})"
    identity = group[0].facts.task_identity or ""
    words = before + before_method(config.mode)
    return named(config.method, before=words, after=order, task_id=identity, mode=config.mode).marked(mark)


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
    for experiment in experiments:
        other = first.setdefault(experiment.name, experiment)
        if other is not experiment:
            other.is_variant = experiment.is_variant = True
            found = differences(other.shared, experiment.shared)[:3]
            settings = [f"{place} {new} instead of {old}" for place, old, new in found]
            if _is_scored(experiment) != _is_scored(other):  # it names no base and no training
                settings = ["trained elsewhere" if _is_scored(experiment) else "trained here"]
            parts = _parts_apart(other, experiment)
            experiment.differs = "; ".join([*settings, *([f"another {listed(parts[:3])}"] if parts else [])])


def _is_scored(experiment: Experiment) -> bool:
    """Whether its runs only score models that were trained elsewhere."""
    return any(result.config.scored for result in experiment.results)


def _parts_apart(one: Experiment, other: Experiment) -> list[str]:
    """The data, files and code that differ between the runs of two experiments, besides what their settings state."""
    first, second = (
        {part: value for result in each.results for part, value in of_cells(result.cells.values()).items()}
        for each in (one, other)
    )
    return [
        part for part, value in second.items() if first.get(part, value) != value and part not in other.shared
    ]
