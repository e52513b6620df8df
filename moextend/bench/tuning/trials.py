"""The trials of a tuning: runs of the first tasks of a sequence, with validation items in place of test items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moextend.bench.audit.duplicates import overlap
from moextend.bench.data.source import parse_split
from moextend.bench.methods import MethodSpec, parse
from moextend.bench.run.opening import folder_of
from moextend.bench.run.plan import (
    Chosen,
    Request,
    all_tasks,
    chosen_bounds,
    chosen_methods,
    config_of,
    refuse_untrained,
)
from moextend.bench.run.rundir import RunConfig
from moextend.bench.sequence import SequenceSpec
from moextend.bench.task import TaskSpec
from moextend.errors import InputError, counted
from moextend.util import files
from moextend.util.search_space import DIGITS, LogRange, SearchSpace

PERCENT = 10
"""Percent of the training data that is held out."""


def held_out_task(task: TaskSpec, percent: int, workspace: Path) -> TaskSpec:
    """The task with `percent` of its training split as the scored split, and the rest of it for training.

    Raises:
        InputError: its training and test data overlap, or are too small a part of a split.
    """
    where = f"{task.path or task.task}: data"
    assert task.data is not None and task.data.train is not None, "a stage of a sequence"
    part = parse_split(task.data.train, where=f"{where}.train")
    test = parse_split(task.data.test, where=f"{where}.test")
    if part.split == test.split and not part.is_apart(test):
        raise InputError(
            "training and test data overlap, so validation items would be test items.",
            where=where,
            hint="Separate them: train: 'all[train]', test: 'all[test]'.",
        )
    cut = part.high - max(1, round((part.high - part.low) * percent / 100))
    if cut <= part.low:
        raise InputError(
            f"'{task.data.train}' is too small a part of its split to hold out validation items.",
            where=f"{where}.train",
            hint="Use a part of at least 2%.",
        )
    if found := overlap(task, workspace):
        raise InputError(
            f"{found}, so validation items would be test items.",
            where=where,
            hint="Remove the duplicates: moextend bench audit shows them.",
        )
    train, validation = (f"{part.undivided}[{a}%:{b}%]" for a, b in ((part.low, cut), (cut, part.high)))
    return task.model_copy(update={"data": task.data.model_copy(update={"train": train, "test": validation})})


MOST = 1000
"""Largest budget."""
SEED = 0
"""Scrambles the sequence, for every search alike."""
STEP = 10**0.5
"""Factor between two values beyond the end of a range."""
REACH = 10.0
"""Factor by which values beyond a range may exceed its end."""


def space_of(method: MethodSpec, stages: int = 2) -> SearchSpace:
    """The settings to search: those that the method declares, that its text does not fix, and that have an effect."""
    idle = method.kind.later_only if stages == 1 else ()
    declared = method.make().search_space
    found = {name: one for name, one in declared.items() if not method.sets(name) and name not in idle}
    # Relative ranges first: the n-th trials of all methods then have the same learning rate.
    return dict(sorted(found.items(), key=lambda pair: not _is_relative(pair[1])))


def draw(space: SearchSpace, budget: int, own: Mapping[str, float]) -> list[dict[str, Any]]:
    """Settings of `budget` trials, all different, fewer if the space has fewer.

    Args:
        own: key of `train` -> the sequence's value, for relative ranges.
    """
    from scipy.stats import qmc

    points = qmc.Halton(len(space), rng=SEED).random(MOST)
    found: dict[str, dict[str, Any]] = {}
    for point in points.tolist():
        drawn = {
            name: one.at(place, own.get(name, 1.0))
            for (name, one), place in zip(space.items(), point, strict=True)
        }
        found.setdefault(str(drawn), drawn)
        if len(found) == budget:
            break
    return list(found.values())


def _is_relative(found: object) -> bool:
    return isinstance(found, LogRange) and found.relative


FOLDER = "tuning"
"""Folder of the trials in a workspace: `tuning/<digest of what a method's trials share>/<sequence>/<run>`."""
TASKS = 2
"""First tasks of a sequence that are learned by default."""
SEEDS = (0, 1)


@dataclass(frozen=True)
class Search:
    """What is tuned, and how."""

    request: Request
    """Sequence, methods, seeds, limit of the validation items and steps of the trials."""
    budget: int
    """Trials of each method; a trial is one choice of settings, run with every seed."""
    tasks: int = TASKS
    """First tasks of the sequence that are learned."""


@dataclass(frozen=True)
class Trial:
    """One choice of settings of a method, and its runs."""

    number: int
    """From 1."""
    settings: dict[str, Any]
    configs: tuple[RunConfig, ...]
    """One per seed."""


@dataclass(frozen=True)
class Planned:
    """The trials of a search."""

    search: Search
    sequence: SequenceSpec
    """The sequence of the trials: the first tasks only, and no tasks that are only scored."""
    tasks: dict[str, TaskSpec]
    methods: dict[str, Chosen]
    """Each method or bound, by its text."""
    trials: dict[str, list[Trial]]
    """Method, as in `--method` -> its trials."""
    folders: dict[str, Path]
    """Method -> folder of the runs of its trials: another one for other tasks or settings of the sequence."""

    @property
    def configs(self) -> dict[Path, RunConfig]:
        """Folder -> config of each run, trial by trial, so that an interrupted search has tried all methods alike."""
        most = max(map(len, self.trials.values()), default=0)
        return {
            folder_of(config, self.folders[method]): config
            for number in range(most)
            for method, trials in self.trials.items()
            for trial in trials[number : number + 1]
            for config in trial.configs
        }

    def following(self, method: str, settings: dict[str, Any]) -> Trial:
        """The next trial of a method, with these settings.

        Raises:
            InputError: the method cannot have them.
        """
        chosen, number = self.methods[method], len(self.trials[method]) + 1
        return _trial(self.search, self.sequence, self.tasks, chosen, number, settings)

    def runs(self, method: str, trial: Trial) -> list[Path]:
        """Folders of the runs of a trial, one per seed."""
        return [folder_of(config, self.folders[method]) for config in trial.configs]


def plan(search: Search, on_problem: Callable[[str], None] | None = None) -> Planned:
    """The trials of all methods, before anything is run.

    `on_problem` is called with each method that is left out, and why.

    Raises:
        InputError: a number is out of range, nothing can be tuned, or a task has no validation items.
    """
    _check(search)
    request = search.request
    sequence, *_ = request.read
    refuse_untrained(sequence)
    if search.tasks > max(len(sequence.stages), TASKS):  # the default may exceed a sequence of one stage
        raise InputError(
            f"{sequence.sequence} has {counted(len(sequence.stages), 'stage')}, fewer than {search.tasks}.",
            where="--tasks",
            hint="Give at most that number.",
        )
    now = sequence
    unset: dict[str, object] = {"retention": [], "transfer": [], "tuned": {}, "tuning_source": None}
    sequence = sequence.model_copy(update={"stages": sequence.stages[: search.tasks], **unset})
    tasks = all_tasks(sequence, request.workspace)
    for stage in sequence.stages:
        tasks[stage.task].refuse_needs()
        tasks[stage.task] = held_out_task(tasks[stage.task], PERCENT, request.workspace)
    methods = [
        Chosen(one.text, "sequence", one, sequence) for one in chosen_methods(request, sequence, on_problem)
    ]
    methods = _tunable([*methods, *chosen_bounds(request, sequence)], len(sequence.stages), on_problem)
    trials = {one.text: _trials(search, sequence, tasks, one, now) for one in methods}
    folders = {
        one.text: request.workspace / FOLDER / _digest(sequence, one.method, trials[one.text][0])
        for one in methods
    }
    return Planned(search, sequence, tasks, {one.text: one for one in methods}, trials, folders)


def _digest(sequence: SequenceSpec, method: MethodSpec, trial: Trial) -> str:
    """Name of a folder of trials: they share the experiment, the order of the stages, and what is not searched."""
    order, fixed = [stage.task for stage in sequence.stages], sequence.settings.get(method.name, {})
    shared = {**trial.configs[0].experiment(), "order": order, "settings": fixed}
    return files.digest(shared)[:8]


def _check(search: Search) -> None:
    """Raises InputError if a number is out of range."""
    for option, number, most in (("--budget", search.budget, MOST), ("--tasks", search.tasks, None)):
        if number < 1 or (most is not None and number > most):
            hint = f"From 1{'' if most is None else f' to {most}'}."
            raise InputError(f"{number} is out of range.", where=option, hint=hint)
    if len(search.request.seeds) < 2:
        raise InputError(
            "one seed cannot separate the effect of settings from chance.",
            where="--seed",
            hint="Give at least two: --seed 0,1.",
        )


def _tunable(
    methods: Sequence[Chosen], stages: int, on_problem: Callable[[str], None] | None
) -> list[Chosen]:
    """The methods with a search space; InputError if there is none."""
    found = [one for one in methods if space_of(one.method, stages)]
    if not found:
        raise InputError(
            f"no setting to search: {', '.join(one.text for one in methods)}.",
            where="--method",
            hint="Leave the settings to search out of NAME:KEY=VALUE, or declare ranges in the method's Config.",
        )
    for one in methods:
        if on_problem and one not in found:
            on_problem(f"{one.text}: no setting to search.")
    return found


def _trials(
    search: Search, sequence: SequenceSpec, tasks: dict[str, TaskSpec], chosen: Chosen, now: SequenceSpec
) -> list[Trial]:
    """The trials of a method: the settings that its runs have `now` without an entry of its own, and drawn ones.

    The entry is what a search writes: after its choice was written, the same search has the same trials.
    """
    others = {name: entry for name, entry in now.tuned.items() if name != chosen.text}
    now = now.model_copy(update={"tuned": others})
    text, tuned = chosen.method.text, now.with_bound(chosen.text, chosen.method.text)
    space, own = space_of(chosen.method, len(sequence.stages)), _numbers(sequence)
    config = parse(text, tuned.settings_for(text), search.request.workspace).config
    known = {name: own.get(name) if (value := getattr(config, name)) is None else value for name in space}
    present = {name: value for name, value in known.items() if value is not None}
    drawn = [each for each in draw(space, search.budget, own) if each != present]
    every = [present, *drawn[: search.budget - 1]]
    return [
        _trial(search, sequence, tasks, chosen, number, settings) for number, settings in enumerate(every, 1)
    ]


def _trial(
    search: Search, sequence: SequenceSpec, tasks: dict[str, TaskSpec], chosen: Chosen, number: int,
    settings: dict[str, Any],
) -> Trial:  # fmt: skip
    method = chosen.method
    for key, value in settings.items():
        method = method.having(key, value)
    seeds = search.request.seeds
    configs = (
        config_of(search.request, sequence, tasks, chosen.mode, method, "given", seed) for seed in seeds
    )
    return Trial(number, settings, tuple(configs))


def beyond(
    planned: Planned, method: str, settings: Mapping[str, Any], tried: Mapping[str, set[Any]]
) -> Trial | None:
    """A trial with one of the chosen `settings` further on, if that is the smallest or largest value tried of it.

    The next value is the end of the range, and from there a factor of `STEP`, up to `REACH` times the end. It depends
    on the scores alone, so that a repeated search tries the same ones. None: each setting is inside, or cannot go on.
    """
    own = _numbers(planned.sequence)
    for key, one in space_of(planned.methods[method].method, len(planned.sequence.stages)).items():
        if not isinstance(one, LogRange) or len(tried[key]) < 2:
            continue
        low, high, value = one.at(0, own.get(key, 1.0)), one.at(1, own.get(key, 1.0)), settings[key]
        if value == min(tried[key]):
            following = low if value > low else value / STEP
        elif value == max(tried[key]):
            following = high if value < high else value * STEP
        else:
            continue
        if low / REACH <= following * 1.01 and following <= high * REACH * 1.01:
            with suppress(InputError):  # a setting may have a limit of its own
                return planned.following(method, {**settings, key: float(f"{following:.{DIGITS}g}")})
    return None


def _numbers(sequence: SequenceSpec) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in sequence.train
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
