"""Resolves a user's request into the configs of runs."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import factorial, prod
from pathlib import Path
from typing import Any, NamedTuple

from moextend.bench import methods
from moextend.bench.checkpoints import Checkpoint
from moextend.bench.methods import ALL, BOUNDS, KNOWN, MethodSpec, parse
from moextend.bench.methods.elsewhere import spec_of
from moextend.bench.run.estimate import Plan, matched, skeletons
from moextend.bench.run.rundir import RunConfig
from moextend.bench.scoring import Scoring
from moextend.bench.sequence import (
    OWN,
    SequenceSpec,
    Stage,
    as_written,
    find_learned,
    find_sequence,
    scored_tasks,
    stage_tasks,
)
from moextend.bench.task import NAME, Mode, TaskSpec, code_allowed
from moextend.bench.tuned import NO_SETTINGS
from moextend.errors import InputError, counted, masked, short
from moextend.training.settings import clash
from moextend.util import content, lookup, spec
from moextend.util.lookup import MOST_SEED, MOST_STEPS

DEFAULT = "tiny"
"""Name of the sequence in the package."""

STEPS = "steps"
"""No settings are matched: methods share only the steps, as always."""

MOST_ORDERS = 1000
"""Random orders that one command may ask for."""
LEFT_OUT = "It runs code that the model writes; --allow-code scores it."


@dataclass(frozen=True)
class Request:
    """A request of the user."""

    workspace: Path
    sequence: str | None = None
    """None: the workspace's own sequence, else that of the package."""
    methods: tuple[str, ...] = ()
    """Empty: those of the sequence. "all": all known methods and bounds; "joint" and "individual" are the bounds,
    "joint:NAME" that of a method."""
    seeds: tuple[int, ...] = (0,)
    orders: tuple[str, ...] = ("given",)
    """given, reverse, or random:N for N different orders."""
    device: str = "auto"
    limit: int | None = None
    """Maximum items per task, instead of the sequence's limit."""
    steps: int | None = None
    """Steps per stage, instead of the sequence's; alignments are at most as long."""
    align_steps: int | None = None
    """Steps of each alignment."""
    oracle: bool = False
    """Score learned tasks also with only their own extension active."""
    deterministic: bool = False
    """Use deterministic algorithms only."""
    backend: Mapping[str, Any] | None = None
    """Settings of the backend that scores, over those of the sequence."""
    match: str = STEPS
    """What methods have in common besides data and batches: `steps`, `params[=METHOD]` or `memory[=METHOD]`."""

    @cached_property
    def read(self) -> tuple[SequenceSpec, dict[str, TaskSpec], list[str]]:
        """The sequence with the overrides applied, its tasks, and text tasks that are left out; files are read once.

        A task is left out that would run code from the model.
        """
        sequence = _overridden(self, find_sequence(self.sequence or _default(self.workspace), self.workspace))
        tasks = all_tasks(sequence, self.workspace)
        texts = {} if code_allowed() else {name: tasks[name].lm_eval for name in sequence.retention}
        left = [name for name, text in texts.items() if text is not None and text.runs_code]
        kept = [name for name in sequence.retention if name not in left]
        sequence = sequence.model_copy(update={"retention": kept})
        return sequence, {name: task for name, task in tasks.items() if name not in left}, left

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """Name -> task, for all tasks of the sequence."""
        return self.read[1]


def resolve(
    request: Request,
    on_match: Callable[[str], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> list[RunConfig]:
    """One config per run, checked without opening data or models.

    `on_match` is called with how each method was matched, `on_problem` with each plug-in that is left out, and why.
    """
    say = on_match or (lambda words: None)
    _check_numbers(request)
    sequence, tasks, left = request.read
    refuse_untrained(sequence)
    _check_tasks(tasks, left, say)
    specs = chosen_methods(request, sequence, on_problem)
    if request.match != STEPS:
        plan = Plan(sequence, tasks, request.workspace, skeletons(sequence.base, request.workspace))
        found = matched(specs, request.match, plan, lambda text: _parsed(request, sequence, text, "--match"))
        specs = [spec for spec, _ in found]
        for _, note in found:
            say(note)
    _refuse_equal(specs, "--method" if request.methods else f"{sequence.path or sequence.sequence}: methods")
    chosen = [Chosen(spec.text, "sequence", spec, sequence) for spec in specs]
    chosen += chosen_bounds(request, sequence)
    chosen = _without_quantised(chosen, request, sequence, say)
    orders = distinct_orders(sequence.stages, request.orders, say)
    configs = [
        config_of(request, one.sequence, tasks, one.mode, one.method, order, seed)
        for one, order, seed in product(chosen, orders, request.seeds)
    ]
    return list({config.slug: config for config in configs}.values())


def refuse_untrained(sequence: SequenceSpec) -> None:
    """Raises InputError for a sequence without stages, base or training."""
    _refuse_empty(sequence)
    if not sequence.is_trained:
        raise InputError(
            f"names no {'training settings' if sequence.base.model else 'base'}, so nothing can be trained.",
            where=str(sequence.path or sequence.sequence),
            hint="Add base and train, or score models that were trained elsewhere: moextend bench score.",
        )


def _refuse_empty(sequence: SequenceSpec) -> None:
    if not sequence.stages:
        where = str(sequence.path or sequence.sequence)
        raise InputError("has no stages.", where=where, hint="Add one: moextend bench add-task vqa.")


def _without_quantised(
    chosen: Sequence[Chosen], request: Request, sequence: SequenceSpec, say: Callable[[str], None]
) -> list[Chosen]:
    """Leaves out what trains weights of a quantised base, if only "all" asks for it; InputError if it is named."""
    trained = [one for one in chosen if sequence.base.quantize and one.method.make().trains_base]
    wanted, where = _wanted(request, sequence)
    named = [_bound_name(text) if _is_bound(text) else text.partition(":")[0] for text in wanted]
    for one in trained:
        what = f"'{one.text}' trains weights of the base, and base.quantize is {sequence.base.quantize}"
        if (one.text if _is_bound(one.text) else one.method.name) in named:
            raise InputError(
                f"{what}.",
                where=where,
                hint="Leave base.quantize out, or choose what adds weights, such as lora, moextend or joint:lora.",
            )
        say(f"left out: {what}.")
    return [one for one in chosen if one not in trained]


def _check_tasks(tasks: Mapping[str, TaskSpec], left: Sequence[str], say: Callable[[str], None]) -> None:
    """Raises InputError for tasks that lack a package, and names those that are left out."""
    for task in tasks.values():
        task.refuse_needs()
    for name in left:
        say(f"left out: {name}. {LEFT_OUT}")


def resolve_scored(
    request: Request,
    name: str,
    checkpoints: Sequence[Checkpoint],
    task_id: str = "none",
    on_note: Callable[[str], None] = lambda words: None,
) -> RunConfig:
    """The config of a run that scores the checkpoints of a method `name`, from the base on.

    Raises:
        InputError: the name is that of a method of this package or of a plug-in, or cannot be one; there are more
            checkpoints than stages; or the sequence or its tasks are wrong.
    """
    _check_numbers(request)
    whole, tasks, left = request.read
    sequence = whole.only_scored()
    if not NAME.fullmatch(name) or name in {*KNOWN.names(request.workspace), *BOUNDS, ALL}:
        taken = "is a method of this package or workspace" if NAME.fullmatch(name) else "is not a name"
        hint = "Use letters, digits, '-', '_', '.' and '+', and a name of your own."
        raise InputError(f"'{short(name, 40)}' {taken}.", where="--name", hint=hint)
    _refuse_empty(sequence)
    if not 1 <= len(checkpoints) <= len(sequence.stages) + 1:
        raise InputError(
            f"{counted(len(checkpoints), 'checkpoint')}, and '{sequence.sequence}' has "
            f"{counted(len(sequence.stages), 'stage')} after the base.",
            where="--stage",
            hint="Name the base first, then the model after each stage, in order.",
        )
    scored = [*(stage.task for stage in sequence.stages), *sequence.retention, *sequence.transfer]
    tasks = {task: tasks[task] for task in scored}
    _check_tasks(tasks, left, on_note)
    stated = {"task_id": task_id}
    sequence = sequence.model_copy(update={"settings": {name: stated}})
    config = config_of(
        request, sequence, tasks, "sequence", spec_of(name, {name: stated}), "given", request.seeds[0]
    )
    places = {**config.places, "stages": [one.model_dump(mode="json") for one in checkpoints]}
    return config.model_copy(update={"scored": True, "tuned_on": None, "places": places})


def _is_bound(text: str) -> bool:
    """Whether a method is asked for as a bound: joint, or joint:lora:rank=4."""
    return text.partition(":")[0] in BOUNDS


def _method_of(text: str) -> str:
    """The method of a bound: of the strongest learner, as all methods are compared with it, unless one is named."""
    return text if not _is_bound(text) else text.partition(":")[2] or methods.named("bound")


def _bound_name(bound: str) -> str:
    """The name of a bound under which its settings are found: joint for joint:full-ft."""
    name = bound.partition(":")[0]
    return name if _method_of(bound) == _method_of(name) else bound


def _check_numbers(request: Request) -> None:
    """Raises InputError if a number is out of range, or there is nothing to run."""
    for option, given in (("--seed", request.seeds), ("--order", request.orders)):
        if not given:
            raise InputError("nothing is named.", where=option, hint="Name one, or leave it out.")
    for option, most, numbers in (
        ("--seed", MOST_SEED, request.seeds),
        ("--steps", MOST_STEPS, (request.steps,)),
        ("--align-steps", MOST_STEPS, (request.align_steps,)),
        ("--limit", None, (request.limit,)),
    ):
        least = 0 if option == "--seed" else 1
        for number in numbers:
            if number is not None and (number < least or (most is not None and number > most)):
                raise InputError(
                    f"{short(str(number), 40)} is out of range.",
                    where=option,
                    hint=f"From {least}{'' if most is None else f' to {most}'}.",
                )


def _default(workspace: Path) -> str:
    return OWN if OWN in content.names("registry", workspace) else DEFAULT


def _overridden(request: Request, sequence: SequenceSpec) -> SequenceSpec:
    if request.limit is not None:
        scoring = sequence.scoring.model_copy(update={"limit": request.limit})
        sequence = sequence.model_copy(update={"scoring": scoring})
    if request.backend:
        changed = {**sequence.scoring.model_dump(), **request.backend}
        scoring = spec.parse(Scoring, changed, where="--backend")
        sequence = sequence.model_copy(update={"scoring": scoring})
    if request.steps is not None:
        sequence = _with_steps(sequence, request.steps)
        if problem := clash(sequence.train):
            raise InputError(f"{problem}.", where="--steps", hint="Take fewer steps.")
    if request.align_steps is not None:
        longer = {"steps": request.align_steps}
        align = tuple(each.model_copy(update=longer) for each in sequence.align)
        sequence = sequence.model_copy(update={"align": align})
    return sequence


def check_settings(sequence: SequenceSpec, workspace: Path) -> None:
    """Raises InputError if `settings` or `tuned` of a sequence name a method or setting that does not exist."""
    file, known = sequence.path or sequence.sequence, dict.fromkeys(KNOWN.names(workspace))
    for name in sequence.settings:  # a misspelt one would have no effect without a message
        lookup.choose("method", name, known, where=f"{file}: settings")
        parse(name, sequence.settings, workspace, where=f"{file}: settings")
    for tuned in filter(None, (sequence, sequence.tuning_source)):
        for text in tuned.tuned:
            where = f"{tuned.path or tuned.sequence}: tuned.{text}"
            lookup.choose("method", text.partition(":")[0], {**known, **BOUNDS}, where=where)
            if _is_bound(text) and (name := _bound_name(text)) != text:
                raise InputError(f"this bound is called '{name}'.", where=where, hint="Rename the entry.")
            method = _method_of(text)
            lookup.choose("method", method.partition(":")[0], known, where=where)
            parse(method, tuned.with_bound(text, method).settings_for(method), workspace, where=where)


def chosen_methods(
    request: Request, sequence: SequenceSpec, on_problem: Callable[[str], None] | None = None
) -> list[MethodSpec]:
    """The requested methods; UnknownName or InputError for one that does not exist or is broken.

    A broken plug-in is left out if only "all" requests it, or if its name is that of a method of the package.
    """
    file, workspace = sequence.path or sequence.sequence, request.workspace
    check_settings(sequence, workspace)
    nameable = dict.fromkeys([*KNOWN.names(workspace), *BOUNDS, ALL])
    wanted, where = _wanted(request, sequence)
    if not wanted:
        raise InputError("names no method.", where=where, hint="Name one there, or by --method.")
    for text in sequence.methods if request.methods else ():  # else they are looked at below
        name = text.partition(":")[0]
        lookup.choose("method", name, nameable, where=f"{file}: methods")
        if name in KNOWN.own():  # a plug-in is imported only where it runs
            _parsed(request, sequence, text, f"{file}: methods")
    names, problems = [name for name in wanted if not _is_bound(name)], KNOWN.hidden(workspace)
    if ALL in names:
        listed = KNOWN.listed(workspace)
        problems |= {each.name: each.problem for each in listed if each.problem}
        usable = [each.name for each in listed if each.found]
        names = [one for name in names for one in (usable if name == ALL else [name])]
    named = [name.partition(":")[0] for name in names]
    for name in named:
        lookup.choose("method", name, nameable, where=where)
    for name, problem in problems.items():
        if on_problem and (name in named or ALL in wanted):
            on_problem(str(problem))
    found = [_parsed(request, sequence, name, where) for name in dict.fromkeys(names)]
    for one in found:
        one.refuse_unused(where)
        one.refuse_stages([stage.task for stage in sequence.stages], f"{file}: stages")
    return found


class Chosen(NamedTuple):
    """A method, or a bound of one."""

    text: str
    """As in `--method`."""
    mode: Mode
    method: MethodSpec
    sequence: SequenceSpec
    """With what was tuned for it."""


def chosen_bounds(request: Request, sequence: SequenceSpec) -> list[Chosen]:
    """The requested bounds."""
    found = list[Chosen]()
    wanted, where = _wanted(request, sequence)
    asked = [*filter(_is_bound, wanted), *(BOUNDS if ALL in wanted else ())]
    for text in dict.fromkeys(map(_bound_name, asked)):
        mode, method = BOUNDS[text.partition(":")[0]], _method_of(text)
        tuned = sequence.with_bound(text, method)
        found.append(Chosen(text, mode, _parsed(request, tuned, method, f"{where}: bound '{text}'"), tuned))
    return found


def _wanted(request: Request, sequence: SequenceSpec) -> tuple[Sequence[str], str]:
    """Methods and bounds of the request, or the sequence's own; and where they are named."""
    if request.methods:
        return request.methods, "--method"
    return sequence.methods, f"{sequence.path or sequence.sequence}: methods"


def _parsed(request: Request, sequence: SequenceSpec, text: str, where: str) -> MethodSpec:
    return parse(text, sequence.settings_for(text), request.workspace, where=where)


def _refuse_equal(specs: list[MethodSpec], where: str) -> None:
    """Raises InputError for two names of one method with equal settings, which would be two rows."""
    for one, other in combinations(specs, 2):
        if one.text != other.text and (one.name, one.config) == (other.name, other.config):
            raise InputError(
                f"'{one.text}' and '{other.text}' are the same method with the same settings.",
                where=where,
                hint="Name one of them.",
            )


def all_tasks(sequence: SequenceSpec, workspace: Path) -> dict[str, TaskSpec]:
    """Name -> task, for all tasks of the sequence: alignment, training and scoring."""
    found = [*stage_tasks(sequence, workspace), *scored_tasks(sequence, workspace)]
    names = [*(stage.task for stage in sequence.stages), *sequence.retention, *sequence.transfer]
    for align in sequence.align:
        where = f"{sequence.path or sequence.sequence}: align.task"
        found.append(find_learned(align.task, workspace, where=where))
        names.append(align.task)
    return dict(zip(names, found, strict=True))


def ordered(stages: Sequence[Any], order: str) -> list[Any]:
    """Stages in the order of a run: `given`, `reverse` or `random:K`, where K seeds the permutation."""
    if order == "given":
        return list(stages)
    if order == "reverse":
        return list(reversed(stages))
    return random.Random(int(order.partition(":")[2])).sample(stages, len(stages))


def distinct_orders(
    stages: Sequence[Stage], asked: Sequence[str], on_merge: Callable[[str], None] = lambda words: None
) -> list[str]:
    """Names of the orders that are asked for, each order once: `random:N` adds N others, or all there are.

    `on_merge` is called with words for orders that are equal, and where there are fewer than N.
    """
    numbers = [_number_of(order) for order in asked]
    tasks = [(stage.visit_of or stage.task, stage.steps) for stage in stages]
    names = {tuple(reversed(tasks)): "reverse", tuple(tasks): "given"}
    found: dict[tuple[Any, ...], str] = {}
    for order in (order for order, number in zip(asked, numbers, strict=True) if not number):
        place = tuple(ordered(tasks, order))
        if place in found:
            on_merge(f"{order} and {found[place]} are the same order, which runs once.")
        found.setdefault(place, names[place])
    wanted, seed = len(found) + max(numbers), 0
    most = factorial(len(tasks)) // prod(factorial(tasks.count(task)) for task in set(tasks))
    if wanted > most:
        on_merge(f"{counted(len(tasks), 'stage')} have {counted(most, 'order')}, and all of them run.")
    while len(found) < min(wanted, most):
        seed += 1
        place = tuple(ordered(tasks, f"random:{seed}"))
        found.setdefault(place, names.get(place, f"random:{seed}"))
    return list(found.values())


def _number_of(order: str) -> int:
    """N of `random:N`, 0 of another order; InputError if there is no such order."""
    found = re.fullmatch("given|reverse|random:([0-9]{1,4})", order)
    number = int(found[1] or 0) if found else 0
    if found is None or (found[1] and not 1 <= number <= MOST_ORDERS):
        raise InputError(
            f"no order '{short(order, 40)}'.",
            where="--order",
            hint=f"Orders: given, reverse, random:N (N different ones, from 1 to {MOST_ORDERS}; e.g. random:3).",
        )
    return number


def _with_steps(sequence: SequenceSpec, steps: int) -> SequenceSpec:
    align = tuple(each.model_copy(update={"steps": min(steps, each.steps)}) for each in sequence.align)
    return sequence.model_copy(
        update={
            "train": sequence.train.model_copy(update={"steps": steps}),
            "stages": [stage.model_copy(update={"steps": None}) for stage in sequence.stages],
            "align": align,
        }
    )


def _without_logins(value: Any) -> Any:
    """A record without passwords, which addresses in notes (prepare, licence) can contain."""
    if isinstance(value, dict):
        return {key: part if key in _ASKED else _without_logins(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_logins(part) for part in value]
    return masked(value) if isinstance(value, str) else value


_ASKED = ("prompt", "open_prompt")
"""Keys with input of the model, which is kept unchanged."""


def _source(sequence: SequenceSpec, method: MethodSpec) -> str | None:
    return sequence.source_of(method.text) if type(method.config).model_fields else NO_SETTINGS


def config_of(
    request: Request,
    sequence: SequenceSpec,
    tasks: dict[str, TaskSpec],
    mode: Mode,
    method: MethodSpec,
    order: str,
    seed: int,
) -> RunConfig:
    """The config of one run; the sequence and its tasks may be changed ones."""
    record = sequence.model_dump(mode="json")
    # What does not change this run's result is no part of what it is.
    record |= {"description": "", "methods": []}
    record |= {"train": sequence.train.record()} if "train" in record else {}
    record["align"] = as_written([align.record() for align in sequence.align])
    for key in ("protocol", "tuned_on", "tuned", "tuned_from"):
        record.pop(key, None)
    record["scoring"] = {key: record["scoring"][key] for key in ("batch_size", "limit")}
    base = record.get("base", {})
    if base.get("attn_implementation", "") is None:  # runs from before there was a choice go on
        base.pop("attn_implementation")
    settings = sequence.settings_for(method.text)
    record["settings"] = {method.name: settings[method.name]} if method.name in settings else {}
    record["stages"] = ordered(record["stages"], order)
    about = {"description": "", "source": ""}
    config = RunConfig(
        sequence=_without_logins(record),
        tasks={name: _without_logins({**task.model_dump(mode="json"), **about}) for name, task in tasks.items()},
        method=method.text, seed=seed, order=order, mode=mode, device=request.device,
        protocol=sequence.protocol, tuned_on=_source(sequence, method), oracle=request.oracle,
        deterministic=request.deterministic, backend=sequence.scoring.record(),
        places={
            "workspace": str(request.workspace.resolve()),
            "sequence": str(sequence.path) if sequence.path else None,
            "tasks": {name: str(task.path) for name, task in tasks.items() if task.path},
        },
    )  # fmt: skip
    vars(config)["method_spec"] = method  # it is not parsed again
    return config
