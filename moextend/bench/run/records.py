"""The files of a run as typed records; writers and readers use the same classes.

The cells of scores.jsonl and the lines of predictions are in moextend.bench.score.records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from moextend.bench.store.node import KeptFile
from moextend.bench.task import TaskIdentity
from moextend.errors import MoextendError, SpecError
from moextend.util import files
from moextend.util.spec import AGAIN, Record

BASE = "base"
"""The base among the models of a run that may come from the hub."""


def encoder_of(modality: str) -> str:
    """The encoder of a modality among them: "image encoder"."""
    return f"{modality} encoder"


Kept = Literal["predictions", "weights"]
"""What a pack may leave out of a run."""
State = Literal["waiting", "running", "done", "failed", "interrupted", "lost"]


class OfRun(Record):
    """A file that names its run, so that no other run takes a copy of it for its own, nor one that was edited."""

    run: str = ""
    """Id of the run."""
    digest: str = ""
    """In the file: digest of the other keys, and of the folder of a stage."""

    @classmethod
    def read_of(cls, run: str, path: Path) -> Self | None:
        """As `read`; SpecError for a file of another run than that with the id `run`, or of another stage."""
        try:
            values = cls.values_in(path)
        except FileNotFoundError:
            return None
        found = cls.parse(values, where=str(path))
        if found.run != run or found.digest != _digest(values, path):
            stage = path.parent.parent.name == "stages"  # what lies next to it may be of another run, too
            raise SpecError(
                "is a file of another run or stage, or was edited.",
                where=str(path),
                hint=f"Remove the folder {path.parent}; the stage is trained again." if stage else AGAIN,
            )
        return found.model_copy(update={"digest": ""})

    def write(self, path: Path) -> None:
        """Writes the record with its digest, atomically."""
        values = json.loads(json.dumps(self.model_dump()))
        files.write_json(path, {**values, "digest": _digest(values, path)})


def _digest(values: Mapping[str, Any], path: Path) -> str:
    """Digest of what a file says, and of the folder of a stage."""
    place = path.parent.name if path.parent.parent.name == "stages" else ""
    return files.digest(place, {key: value for key, value in values.items() if key != "digest"})


class AlignmentCost(BaseModel):
    """Alignment of a projector before the first stage; all methods with the same seed share it."""

    model_config = Record.model_config

    task: str
    """The caption task."""
    steps: int
    """Steps of its training."""
    tokens: int | None = None
    """Tokens of its training, without padding. null: not known."""
    flops: float | None = None
    """Floating-point operations of its training. null: not known."""
    seconds: float | None = None
    """Wall-clock time of its training, in seconds, by the run that trained it. null: not known."""


class StageCost(OfRun):
    """`stages/<t>-<task>/cost.json`: costs of a stage. Sums and peaks include interrupted attempts."""

    trained_parameters: int | None = None
    """Parameters with gradients. null: not known."""
    tokens: int | None = None
    """Tokens of the training, without padding. null: not known."""
    flops: float | None = None
    """Floating-point operations of the training. null: not known."""
    forward_flops: float | None = None
    """Floating-point operations per token of a forward pass on the stage's task after the stage. null: not known."""
    probe_flops: float | None = None
    """Floating-point operations of the probe's training. null: no probe, or not known."""
    stored_mb: float | None = None
    """Size of the stage's files for later stages and for inference, in 10^6 bytes. null: not known."""
    raw_mb: float = 0.0
    """Size of the raw data of the stage's task that the method keeps, in 10^6 bytes."""
    kept_mb: float | None = None
    """Size of everything that inference or a later stage needs after this stage, in 10^6 bytes: files of this stage, or
    of all stages so far, and the raw data that is kept of them; not the base. null: not known."""
    seconds: float | None = None
    """Wall-clock time of the training, in seconds. null: not known."""
    peak_rss_mb: float | None = None
    """Peak resident memory of the process by the end of the stage, in MiB. null: not known."""
    peak_gpu_mb: float | None = None
    """Peak GPU memory of the process by the end of the stage, in MiB. null: no GPU, or not known."""
    layers: list[int] | None = None
    """Layers that got new experts. null: the method adds none."""
    change: list[float] | None = None
    """Change of every layer's router in the probe (d_j of docs/method.md). null: no probe."""
    alignments: dict[str, AlignmentCost] = Field(default_factory=dict)
    """Modality -> alignment of its projector, at the first stage whose task has the modality. It comes on top of the
    other keys."""
    trained_by: str | None = None
    """`<sequence>/<run>` that trained the stage, if this run took it from the store of the workspace: the costs of the
    training are those of that run. null: this run trained it."""
    files: dict[str, KeptFile] = Field(default_factory=dict)
    """Name of a file in the stage's folder -> size and digest; `extension.json` has those of the weights."""
    notes: dict[str, Any] = Field(default_factory=dict)
    """Other facts that the method recorded, such as `loss`. No table shows them."""

    @classmethod
    def of(cls, facts: dict[str, Any], *, where: str) -> Self:
        """Record from a mapping with the method's facts and the measurements; unknown keys become notes."""
        known = {key: value for key, value in facts.items() if key in cls.model_fields}
        notes = {key: value for key, value in facts.items() if key not in cls.model_fields}
        values = {**known, "notes": notes | known.get("notes", {})}
        return cls.parse(values, where=where, hint="Correct the method's `learn`.")


class TaskRouting(BaseModel):
    """Routing of the tokens of one task, on held-out training conversations."""

    model_config = Record.model_config

    tokens: int
    """Number of tokens."""
    experts: list[dict[str, list[int]]]
    """For each block: extension ("": the base) -> tokens that each of its experts computed."""
    reached: list[dict[str, float]]
    """For each block: extension -> share of the tokens that reach any of its experts, 0..1."""
    drift: list[float] | None = None
    """For each block: KL divergence in nats from the choices at the stage of the task. null: this is that stage."""


class InferredTask(BaseModel):
    """Extensions that task inference chooses for the inputs of one task."""

    model_config = Record.model_config

    inputs: int
    """Number of inputs."""
    reached: dict[str, float]
    """Extension ("": none, only the base computes) -> share of the inputs, 0..1."""


class Inferred(BaseModel):
    """Task inference of a method that is not given the task."""

    model_config = Record.model_config

    rejected: dict[str, float]
    """Extension -> upper bound of the expected share of its own inputs that its threshold rejects, 0..1."""
    tasks: dict[str, InferredTask]
    """Task of the sequence, learned or not, or (text), the generic text -> result."""


class RoutingReport(OfRun):
    """`stages/<t>-<task>/routing.json`: experts that the learned tasks use after a stage; no score depends on it."""

    tasks: dict[str, TaskRouting]
    """Learned task, or (text), the generic text -> its routing."""
    layers: list[int] | None = None
    """Layers that got new experts in this stage. null: the method adds none."""
    change: list[float] | None = None
    """Change of every layer's router in the probe (d_j of docs/method.md). null: no probe."""
    inferred: Inferred | None = None
    """Task inference. null: the method infers nothing."""
    oracle: dict[str, float | None] | None = None
    """Task -> final score in percent with only its own extension active; null if that needs other ones. Empty: the
    method has the task given. null instead of a mapping: not requested, or not the last stage."""


class RunFacts(OfRun):
    """`facts.json`: facts that a run records."""

    task_identity: TaskIdentity | None = None
    """Task identity at inference: given, inferred or none. null: row 0 is not scored yet."""
    text_untouched: bool | None = None
    """Whether inputs without an image never use trained weights. null: not known; see docs/statistics.md."""
    majority: dict[str, float | None] | None = None
    """Learned image task -> percent that the majority answer reaches (no image); null if the task has no training
    items. null instead of a mapping: row 0 is not scored yet."""
    base_flops: dict[str, float] | None = None
    """Name of a stage -> floating-point operations per token of the base's forward pass on its task. null: as above."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The method's settings with all defaults, for information: defaults may differ between releases."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """What the run works on: part ("train data of task 'vqav2'", "code of method 'mine'") -> digest. A run is refused
    if a part changes on which a result depends. Cells have those that they were made of."""
    revisions: dict[str, str] = Field(default_factory=dict)
    """Task -> commit of its data set on the Hugging Face Hub, from the first use on; a resumed run opens it."""
    models: dict[str, dict[str, str]] = Field(default_factory=dict)
    """`base`, `image encoder`, `audio encoder` or `checkpoint of stage N` -> model on the Hugging Face Hub -> its
    commit, from the first use on; a resumed run opens it."""
    stated: dict[str, dict[str, str | int | float]] = Field(default_factory=dict)
    """Stage of a run that only scores -> what is stated of its training (command, hours, ...); nothing of it was
    measured."""
    text_data: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Text task -> data set on the Hugging Face Hub -> its commit, from the first use on; a resumed run opens it."""


class RunError(BaseModel):
    """Why a run failed; passwords are masked."""

    model_config = Record.model_config

    what: str | None
    """What is wrong. null: not known."""
    where: str | None
    """Its place: a file, a setting, a stage. null: not known."""
    hint: str | None
    """How to fix it. null: not known."""

    def __str__(self) -> str:
        return str(MoextendError(self.what or "", where=self.where, hint=self.hint))


class Status(Record):
    """`status.json`: progress of a run. Written about twice a second during the run."""

    state: State = "waiting"
    """waiting, running, done, failed or interrupted. A reader shows running as interrupted if the process ended, and as
    lost if its heartbeat stopped on another host."""
    pid: int | None = None
    """Id of the process of the run. null: it did not start."""
    host: str = ""
    """Name of its machine."""
    started: float | None = None
    """Start of this attempt, in seconds since 1970. null: it did not start."""
    heartbeat: float | None = None
    """Time of this record, in seconds since 1970. null: it did not start."""
    elapsed: float = 0.0
    """Seconds since this attempt began; earlier attempts are not counted."""
    phase: str | None = None
    """Current phase: align, probe, train, merge or score; between their steps check (of the data), load (the base),
    prepare (a stage), serve (a server is started) or wait (another run makes what this one needs). null: none."""
    stage: int = 0
    """Current stage; 0 is the base."""
    stages: int = 0
    """Number of stages of the sequence."""
    task: str | None = None
    """Current task. null: none."""
    step: int = 0
    """Current step: of a training, or percent of a scoring."""
    steps: int = 0
    """Number of these steps."""
    done: int = 0
    """Number of units done: a training of a stage or the scoring of a cell is one."""
    units: int = 0
    """Number of all units."""
    fraction: float = 0.0
    """Share of the run that is done, 0..1: by time if it is known, else by units."""
    left: float | None = None
    """Seconds left. null: a later phase has not been measured yet."""
    error: RunError | None = None
    """Why it failed. null: it did not."""
    run: str = ""
    """Id of the run."""
    config: str = ""
    """Digest of the config of this status: "done" holds for that config only."""
    left_out: list[Kept] = Field(default_factory=list)
    """What the pack that the run is from left out of what its stages learned (weights) and answered (predictions)."""
