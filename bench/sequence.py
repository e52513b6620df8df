"""What a sequence is: an ordered list of stages, its base, and what is scored: one YAML in `registry/`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from moextend import content, spec
from moextend.bench.task import TaskSpec, find_task
from moextend.errors import SpecError
from moextend.spec import Spec

if TYPE_CHECKING:
    from moextend.settings import Settings


Schedule = Literal["cosine", "linear", "constant"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]
Attention = Literal["eager", "sdpa", "flash_attention_2"]
Tracker = Literal[
    "none", "all", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow",
    "neptune", "swanlab", "tensorboard", "trackio", "wandb",
]  # fmt: skip
"""Trackers that transformers knows."""


class Upcycle(Spec):
    """How a dense model is made a Mixture of Experts (docs/upcycling.md)."""

    experts: int = Field(ge=2)
    """Experts a layer."""
    top_k: int = Field(2, ge=1)
    """Experts that a token uses."""
    rows: Literal["random", "paired"] = "random"
    """paired: groups of top_k experts are chosen together, evenly."""
    seed: int = 0
    """Of the router's rows."""


class Base(Spec):
    """The pretrained model that is extended."""

    model: str
    """A model of the package ("tiny"), a folder (of the workspace, else of the current one), "smollm2", or a hub id."""
    upcycle: Upcycle | None = None
    """For a dense model."""
    vision: str | None = None
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


class Training(Spec):
    """Settings of one training, the same for every method (a method may set its own learning rate).

    What they mean: `moextend.settings.Settings`.
    """

    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch_size: int = Field(ge=1)
    """Conversations a forward pass."""
    learning_rate: float = Field(gt=0)
    """Highest learning rate."""
    schedule: Schedule = "cosine"
    """How the learning rate goes on after the warm-up."""
    warmup: float = Field(0.03, ge=0, le=1)
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = Field(0.0, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(1.0, ge=0)
    """The gradient is cut to this norm; 0 leaves it as it is."""
    gradient_accumulation: int = Field(1, ge=1)
    """Forward passes an optimizer step."""
    checkpoint_steps: int = Field(100, ge=1)
    """Steps between two checkpoints that an interrupted training goes on from."""
    bf16: bool = False
    """Compute in bfloat16; what learns is held in float32."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    compile: bool = False
    """Compile the decoder's layers."""
    balance: float = Field(0.0, ge=0)
    """Factor on the load-balance loss among the new experts of a stage."""
    cache_prefix: bool = False
    """Keep what enters the lowest layer that learns, and begin there from the second epoch on."""
    report_to: Tracker = "none"
    """A tracker of transformers that follows the training."""

    def settings(
        self, seed: int, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Settings:
        """What the training loop takes; None leaves a value as it stands here."""
        from moextend.settings import Settings

        shared = self.model_dump(include=set(Training.model_fields))
        own = {"steps": steps, "learning_rate": learning_rate}
        return Settings(**shared | {k: v for k, v in own.items() if v is not None}, seed=seed)


class Align(Training):
    """How the projector of the modality is aligned, once, before the first stage."""

    task: str
    """A caption task, whose items train the projector."""


class Stage(Spec):
    """One task being learnt."""

    task: str
    """Name of the task."""
    steps: int | None = Field(None, ge=1)
    """Overrides the sequence's number of steps."""


class Scoring(Spec):
    """How every cell of the matrix is scored."""

    batch_size: int = Field(64, ge=1)
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
    retention: list[str] = []
    """Text tasks that are only scored: what the base could do and should not forget."""
    transfer: list[str] = []
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

    def memory_file(self) -> Path | None:
        """The file of generic text: beside this YAML, else that of the package."""
        if self.memory is None:
            return None
        beside = (self.path.parent if self.path else Path()) / self.memory
        packaged = (content.package_folder("registry") / self.memory).resolve()
        return packaged if packaged.is_file() and not beside.is_file() else beside


def read_sequence(path: Path) -> SequenceSpec:
    """The sequence in a YAML file."""
    sequence = spec.read(SequenceSpec, path).model_copy(update={"path": path.resolve()})
    seen = [stage.task for stage in sequence.stages]
    for name in seen:
        if seen.count(name) > 1:
            raise SpecError(
                f"task '{name}' stands twice.", where=f"{path}: stages", mend="Name a task once a sequence."
            )
    return sequence


def find_sequence(name: str, workspace: Path) -> SequenceSpec:
    """The sequence called `name`, from the workspace or the package."""
    return read_sequence(content.find("registry", name, workspace))


def stage_tasks(sequence: SequenceSpec, workspace: Path) -> list[TaskSpec]:
    """The tasks of the stages, in learning order."""
    where = str(sequence.path or sequence.sequence)
    return [
        find_task(stage.task, workspace, where=f"{where}: stages[{i}].task")
        for i, stage in enumerate(sequence.stages)
    ]


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
                    mend=f"Name it under {other}, or under stages to learn it.",
                )
            found.append(task)
    return found
