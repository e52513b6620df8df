"""The spec of a sequence: ordered stages, a base, and tasks to score; one YAML file in `registry/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from moextend.bench.base import Base as Base
from moextend.bench.scoring import Scoring as Scoring
from moextend.bench.task import NAME, TaskSpec, find_task
from moextend.bench.tuned import TEST, VALIDATION, Settings, Source, Tuned, base_spec, chosen_for
from moextend.errors import InputError, SpecError
from moextend.training.settings import Steps, Training
from moextend.util import content, files, spec
from moextend.util.spec import Spec, unset


def _no_name_twice(names: list[str]) -> list[str]:
    """Raises ValueError if a list has a name twice."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' occurs twice")
    return names


Names = Annotated[list[str], AfterValidator(_no_name_twice)]


class Align(Training):
    """Alignment of a modality's projector, once, before the first stage."""

    task: str
    """Caption task for training the projector; the modality is that of its data."""


def as_written(alignments: Sequence[Any]) -> Any:
    """Alignments as a YAML file has them: one, or a list of several; None without any."""
    return alignments[0] if len(alignments) == 1 else [*alignments] or None


Alignments = Annotated[
    tuple[Align, ...],
    BeforeValidator(
        lambda value: value if isinstance(value, list | tuple) else [] if value is None else [value]
    ),
    PlainSerializer(lambda aligns: as_written([one.model_dump() for one in aligns])),
]


class Stage(Spec):
    """One task to learn."""

    task: str
    """Name of the task."""
    steps: Steps | None = None
    """Overrides the sequence's number of steps."""
    visit_of: str | None = unset(None)
    """Not written by hand: the task of an earlier stage that this one learns again, under a name with the number of
    the visit (`task-visit2`)."""


UNNAMED = Base.model_construct(model="")
"""In place of the base of a sequence that names none."""
NOTHING = Training.model_construct(steps=0, batch_size=1, learning_rate=0.0)
"""In place of the training of a sequence that names none."""


class SequenceSpec(Spec):
    """An ordered list of stages with its base, its scored tasks and its training settings."""

    sequence: str
    """Its name, and the name of its folder of runs."""
    version: int | str
    """Incremented with every change that can change scores."""
    description: str = ""
    """One sentence, for lists."""
    protocol: str | None = None
    """Published protocol of the sequence: only references of the same protocol are compared with its scores."""
    base: Base = unset(UNNAMED)
    """The model that is extended. Without base and `train` only models that were trained elsewhere are scored."""
    align: Alignments = ()
    """One, or a list with one per modality; null for a base without encoders."""
    stages: list[Stage]
    """Tasks in training order. A task that occurs again is visited again: the second visit is named `task-visit2`."""
    retention: Names = []
    """Text tasks that are only scored: abilities of the base that should not be forgotten."""
    transfer: Names = []
    """Tasks about images, sounds or other media that are only scored: transfer of the stages' skills. They are in the
    matrix, but in no mean."""
    memory: str | None = None
    """Text file with one text per line: generic text as a sample of the base's knowledge (retention options)."""
    train: Training = unset(NOTHING)
    """Settings of the training of a stage."""
    scoring: Scoring = Scoring()
    """Settings of inference and scoring."""
    methods: list[str] = ["full-ft", "lora", "moextend"]
    """Default methods: `name` or `name:key=value,...`."""
    settings: Settings = {}
    """Settings of a method in this sequence, e.g. its learning rate."""
    tuned_on: Source | None = None
    """Source of the settings of this sequence, except tuned ones. Null: not stated."""
    tuned: dict[str, Tuned] = unset({})
    """Method, as in `methods` -> the settings that `bench tune` chose for it; they override `settings`."""
    tuned_from: str | None = unset(None)
    """Another sequence. What is under its `tuned` holds for methods that this one does not tune itself."""
    tuning_source: SequenceSpec | None = Field(default=None, exclude=True)
    """Not written by hand: that sequence."""
    path: Path | None = Field(default=None, exclude=True)
    """File of the spec."""

    @model_validator(mode="before")
    @classmethod
    def _not_by_hand(cls, values: Any) -> Any:
        if isinstance(values, dict) and "tuning_source" in values:
            raise ValueError(
                "tuning_source cannot be set by hand; name a sequence instead (tuned_from: NAME)"
            )
        return values

    @model_validator(mode="after")
    def _aligns_an_encoder(self) -> Self:
        base = self.base
        if self.align and not (base.vision or base.audio or base.encoders):
            raise ValueError(
                "align trains the projector of an encoder, but base.vision, base.audio and base.encoders "
                "name no encoder"
            )
        _no_name_twice([align.task for align in self.align])
        return self

    @property
    def is_trained(self) -> bool:
        """Whether it names a base and a training."""
        return bool(self.base.model and self.train.steps)

    def only_scored(self) -> SequenceSpec:
        """The same tasks and scoring, without base and training."""
        none: dict[str, Any] = {"base": UNNAMED, "train": NOTHING, "align": (), "memory": None}
        scoring = Scoring(batch_size=self.scoring.batch_size, limit=self.scoring.limit)
        none["stages"] = [stage.model_copy(update={"steps": None}) for stage in self.stages]
        none |= {"scoring": scoring, "settings": {}, "tuned": {}, "tuning_source": None, "tuned_on": None}
        return self.model_copy(update=none)

    def settings_for(self, method: str) -> dict[str, dict[str, Any]]:
        """Name of a method -> its settings, with what was tuned for `method`, as in `methods`."""
        (name, _), (entry, _) = base_spec(method), self._tuned(method)
        found = {other: dict(own) for other, own in self.settings.items()}
        return {**found, name: {**found.get(name, {}), **entry.settings}} if entry else found

    def with_bound(self, bound: str, method: str) -> SequenceSpec:
        """With what was tuned for a bound, such as `joint`, in place of what was tuned for its method."""
        own = {method: self.tuned[bound]} if bound in self.tuned else {}
        elsewhere = self.tuning_source and self.tuning_source.with_bound(bound, method)
        return self.model_copy(update={"tuned": {**self.tuned, **own}, "tuning_source": elsewhere})

    def source_of(self, method: str) -> str | None:
        """Source of the settings of `method`, as in `methods`; None if it is not stated."""
        entry, source = self._tuned(method)
        if entry:
            return source
        (name, own), stated = base_spec(method), self.tuned_on
        if stated == TEST or (stated and (method in self.methods or not own)):
            return stated
        return None if own or name in self.settings or stated else "default"

    def _tuned(self, method: str) -> tuple[Tuned | None, str | None]:
        """What was tuned for a method, here or else elsewhere, and its source if nothing else is set."""
        origin, (entry, exact), source = self, chosen_for(method, self.tuned), str(VALIDATION)
        if entry is None and self.tuning_source:
            origin, source = self.tuning_source, f"{VALIDATION} of {self.tuned_from}"
            entry, exact = chosen_for(method, origin.tuned)
        if entry is None or not exact:
            return entry, None
        name, _ = base_spec(method)
        then = origin.settings.get(name, {}) if entry.fixed is None else entry.fixed
        before, now = (
            {key: value for key, value in each.items() if key not in entry.settings}
            for each in (then, self.settings.get(name, {}))
        )
        if before == now:  # it was tuned with the other settings that it has
            other = entry.steps not in (None, self.train.steps)
            return entry, f"{source} with {entry.steps} steps" if other else source
        return entry, TEST if self.tuned_on == TEST else None

    def memory_file(self) -> Path | None:
        """File of generic text: in the folder of this YAML file, else in the package."""
        if self.memory is None:
            return None
        own = (self.path.parent if self.path else Path()) / self.memory
        packaged = (content.package_folder("registry") / self.memory).resolve()
        return packaged if files.exists(packaged) and not files.exists(own) else own


OWN = "sequence"
"""The workspace's own sequence, registry/sequence.yaml, whatever name it has."""


def read_sequence(path: Path) -> SequenceSpec:
    """Sequence from a YAML file."""
    sequence = spec.read(SequenceSpec, path).model_copy(update={"path": path.resolve()})
    if not NAME.fullmatch(sequence.sequence):
        raise SpecError(
            f"'{sequence.sequence}' is not a name.",
            where=f"{path}: sequence",
            hint="Use letters, digits, '-', '_', '.' and '+', starting with a letter or digit.",
        )
    if sequence.sequence != path.stem and path.stem != OWN:
        raise SpecError(
            f"the sequence is called '{sequence.sequence}', and its file '{path.stem}'.",
            where=f"{path}: sequence",
            hint="Give both the same name.",
        )
    sequence = sequence.model_copy(update={"stages": _numbered(sequence.stages, path)})
    seen = [stage.task for stage in sequence.stages]
    for key, name in [
        *(("stages", name) for name in seen),
        *(("transfer", name) for name in sequence.transfer),
    ]:
        if seen.count(name) > (key == "stages"):
            raise SpecError(
                f"task '{name}' occurs twice.",
                where=f"{path}: {key}",
                hint="Name it either under stages or under transfer; no task may have the name of the "
                "second visit of another.",
            )
    return sequence


def _numbered(stages: Sequence[Stage], path: Path) -> list[Stage]:
    """The stages, with names of their own for visits after the first."""
    found: list[Stage] = []
    for place, stage in enumerate(stages):
        if stage.visit_of is not None:
            raise SpecError(
                "cannot be set by hand.",
                where=f"{path}: stages[{place}].visit_of",
                hint=f"Write `task: {stage.visit_of}` again: visits are counted.",
            )
        visit = 1 + sum(before.task == stage.task for before in stages[:place])
        again = {"task": f"{stage.task}-visit{visit}", "visit_of": stage.task}
        found.append(stage if visit == 1 else stage.model_copy(update=again))
    return found


def find_sequence(name: str, workspace: Path) -> SequenceSpec:
    """Sequence `name` of the workspace or the package, with what was tuned on the one that `tuned_from` names."""
    sequence = read_sequence(content.find("registry", name, workspace))
    if sequence.tuned_from is None:
        return sequence
    return sequence.model_copy(update={"tuning_source": _tuning_source(sequence, workspace)})


def _tuning_source(sequence: SequenceSpec, workspace: Path) -> SequenceSpec:
    """The sequence that `tuned_from` names, of the workspace or the package.

    Raises:
        SpecError: it has no settings that were tuned.
        UnknownName: there is none of that name.
    """
    name, where = str(sequence.tuned_from), f"{sequence.path}: tuned_from"
    if name == sequence.sequence:
        raise SpecError(
            "names the sequence itself.", where=where, hint="Remove it, or name another sequence."
        )
    source = read_sequence(content.find("registry", name, workspace, where=where))
    if not source.tuned:
        further = f"Name {source.tuned_from}" if source.tuned_from else f"Tune it: moextend bench tune {name}"
        raise SpecError(f"no method was tuned on '{name}'.", where=where, hint=f"{further}.")
    return source


def stage_tasks(sequence: SequenceSpec, workspace: Path) -> list[TaskSpec]:
    """Tasks of the stages, in training order, each named as its stage."""
    where = str(sequence.path or sequence.sequence)
    found = []
    for i, stage in enumerate(sequence.stages):
        task = find_learned(stage.visit_of or stage.task, workspace, where=f"{where}: stages[{i}].task")
        found.append(task.model_copy(update={"task": stage.task}))
    return found


def find_learned(name: str, workspace: Path, *, where: str) -> TaskSpec:
    """Task `name`; SpecError if it cannot be learned."""
    task = find_task(name, workspace, where=where)
    if task.data is None or task.data.train is None:
        why = "a text task of lm-eval" if task.data is None else "without training data (data.train is null)"
        key = "retention" if task.data is None else "transfer"
        raise SpecError(
            f"'{name}' is {why}, so it is only scored.",
            where=where,
            hint=f"Name it under {key}, or choose another task to learn.",
        )
    return task


def scored_tasks(sequence: SequenceSpec, workspace: Path) -> list[TaskSpec]:
    """The tasks that are only scored: of retention, then of transfer."""
    where = str(sequence.path or sequence.sequence)
    found = []
    for key, names in (("retention", sequence.retention), ("transfer", sequence.transfer)):
        for i, name in enumerate(names):
            task = find_task(name, workspace, where=f"{where}: {key}[{i}]")
            if (task.kind == "text") != (key == "retention"):
                kinds, other = (
                    ("text tasks", "transfer")
                    if key == "retention"
                    else ("tasks about images, sounds or other media", "retention")
                )
                raise SpecError(
                    f"'{name}' is a {task.kind} task, and {key} holds {kinds}.",
                    where=f"{where}: {key}[{i}]",
                    hint=f"Name it under {other}, or under stages to learn it.",
                )
            found.append(task)
    return found


def memory_texts(path: Path | None) -> list[str]:
    """Lines of a file of generic text; InputError if it cannot be read."""
    if path is None:
        return []
    if files.exists(path) and not path.is_file():  # a device may never end
        raise InputError("is not a regular file.", where=str(path), hint="Check 'memory' of the sequence.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"cannot be read ({why}).", where=str(path), hint="Check 'memory' of the sequence."
        ) from error
    return [line for line in lines if line.strip()]
