"""What a sequence is: an ordered list of stages, its base, and what is scored: one YAML in `registry/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from moextend.bench.task import NAME, TaskSpec, find_task
from moextend.errors import InputError, SpecError
from moextend.training.settings import Batch, Seed, Steps, Training
from moextend.util import content, files, spec
from moextend.util.spec import Spec

Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]
Attention = Literal["eager", "sdpa", "flash_attention_2"]


def _no_name_twice(names: list[str]) -> list[str]:
    """ValueError where a name stands twice in a list."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' stands twice")
    return names


Names = Annotated[list[str], AfterValidator(_no_name_twice)]
Mode = Literal["sequence", "joint", "independent"]
"""How the tasks are learned: one after the other, all at once, or each from the base."""


class Upcycle(Spec):
    """How a dense model is made a Mixture of Experts (docs/upcycling.md)."""

    experts: int = Field(ge=2)
    """Experts a layer."""
    top_k: int = Field(2, ge=1)
    """Experts that a token uses."""
    rows: Literal["random", "paired"] = "random"
    """paired: groups of top_k experts are chosen together, evenly."""
    seed: Seed = 0
    """Of the router's rows."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(f"top_k is {self.top_k}, more than the {self.experts} experts")
        if self.rows == "paired" and self.experts % self.top_k:
            raise ValueError(f"{self.experts} experts cannot be split into groups of {self.top_k}")
        return self


class Base(Spec):
    """The pretrained model that is extended."""

    model: str = Field(min_length=1)
    """A model of the package ("tiny"), a folder (of the workspace, else of the current one), "smollm2", or a hub id."""
    upcycle: Upcycle | None = None
    """For a dense model."""
    vision: str | None = Field(None, min_length=1)
    """An image encoder: "tiny", a local folder, or one of open_clip or timm (docs/vision.md)."""
    resize: Literal["shortest", "longest", "squash"] | None = None
    """How images become square: sides cut off, padded, or squeezed; null as the encoder's own config says."""
    revision: str | None = None
    """Pinned revision of a hub model."""
    dtype: Dtype = "float32"
    """Of its weights; auto takes the checkpoint's own."""
    attn_implementation: Attention | None = None
    """eager, sdpa or flash_attention_2; null: transformers' choice."""
    chat: bool | None = None
    """Whether prompts are put into the tokenizer's chat template; null: where it has one."""

    def found(self, workspace: Path) -> str:
        """The model as `moextend.load` takes it: a folder of the workspace goes first."""
        folder = workspace / self.model
        return str(folder) if files.exists(folder) and folder.is_dir() else self.model


class Align(Training):
    """How the projector of the modality is aligned, once, before the first stage."""

    task: str
    """A caption task, whose items train the projector."""


class Stage(Spec):
    """One task being learned."""

    task: str
    """Name of the task."""
    steps: Steps | None = None
    """Overrides the sequence's number of steps."""


class Scoring(Spec):
    """How every cell of the matrix is scored."""

    batch_size: Batch = 64
    """Prompts that are answered together."""
    limit: int | None = Field(None, ge=1)
    """Items a task at the most; null scores all."""


class SequenceSpec(Spec):
    """An ordered list of stages with its base, its scored tasks and its training settings."""

    sequence: str
    """Its name, which is also that of its folder of runs."""
    version: int | str
    """Raised whenever scores can change."""
    description: str = ""
    """One sentence, for lists."""
    protocol: str | None = None
    """The published protocol that is followed: only references of the same one may stand beside what is measured."""
    base: Base
    """The model that is extended."""
    align: Align | None = None
    """Null for a base without images."""
    stages: list[Stage]
    """The tasks in the order they are learned."""
    retention: Names = []
    """Text tasks that are only scored: what the base could do and should not forget."""
    transfer: Names = []
    """Image tasks that are only scored: what the stages' skill carries over to. In the matrix, in no mean."""
    memory: str | None = None
    """A text file, one line a text: generic text that stands for what the base knows (retention options)."""
    train: Training
    """Settings of the training of a stage."""
    scoring: Scoring = Scoring()
    """How answers are made."""
    methods: list[str] = ["full-ft", "lora", "moextend"]
    """Methods that run when none is named: `name` or `name:key=value,...`."""
    settings: dict[str, dict[str, str | int | float | bool | list[str]]] = {}
    """Settings of a method in this sequence, e.g. its learning rate."""
    path: Path | None = Field(None, exclude=True)
    """The file that this was read from."""

    @model_validator(mode="after")
    def _aligns_an_encoder(self) -> Self:
        if self.align is not None and self.base.vision is None:
            raise ValueError("align trains the projector of an image encoder, and base.vision names none")
        return self

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
    """The sequence in a YAML file."""
    sequence = spec.read(SequenceSpec, path).model_copy(update={"path": path.resolve()})
    if not NAME.fullmatch(sequence.sequence):
        raise SpecError(
            f"'{sequence.sequence}' is not a name.",
            where=f"{path}: sequence",
            hint="Use letters, digits, '-', '_', '.' and '+', a letter or digit first.",
        )
    if sequence.sequence != path.stem and path.stem != OWN:
        raise SpecError(
            f"the sequence is called '{sequence.sequence}', and its file '{path.stem}'.",
            where=f"{path}: sequence",
            hint="Give both the same name.",
        )
    seen = [stage.task for stage in sequence.stages]
    for key, name in [
        *(("stages", name) for name in seen),
        *(("transfer", name) for name in sequence.transfer),
    ]:
        if seen.count(name) > (key == "stages"):
            raise SpecError(
                f"task '{name}' stands twice.", where=f"{path}: {key}", hint="Name a task once a sequence."
            )
    return sequence


def find_sequence(name: str, workspace: Path) -> SequenceSpec:
    """The sequence called `name`, from the workspace or the package."""
    return read_sequence(content.find("registry", name, workspace))


def stage_tasks(sequence: SequenceSpec, workspace: Path) -> list[TaskSpec]:
    """The tasks of the stages, in learning order."""
    where = str(sequence.path or sequence.sequence)
    return [
        find_learned(stage.task, workspace, where=f"{where}: stages[{i}].task")
        for i, stage in enumerate(sequence.stages)
    ]


def find_learned(name: str, workspace: Path, *, where: str) -> TaskSpec:
    """The task called `name`; SpecError where it cannot be learned from."""
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
                kind, other = ("text", "transfer") if key == "retention" else ("image", "retention")
                raise SpecError(
                    f"'{name}' is a {task.kind} task, and {key} holds {kind} tasks.",
                    where=f"{where}: {key}[{i}]",
                    hint=f"Name it under {other}, or under stages to learn it.",
                )
            found.append(task)
    return found


def memory_texts(path: Path | None) -> list[str]:
    """The lines of a file of generic text; InputError where it cannot be read."""
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
