"""The files of a run as typed records: whoever writes one and whoever reads it use the same class.

The cells of scores.jsonl and the lines of predictions are in moextend.bench.score.records.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from moextend.bench.task import TaskIdentity
from moextend.util.record import Record

State = Literal["waiting", "running", "done", "failed", "interrupted"]


class KeptFile(BaseModel):
    """A file that a stage keeps besides its weights."""

    model_config = Record.model_config

    bytes: int
    """Size."""
    sha256: str
    """SHA-256 of the content, 64 hex digits."""


class StageCost(Record):
    """`stages/<t>-<task>/cost.json`: what a stage took. Sums and peaks include interrupted attempts."""

    trained_parameters: int | None = None
    """Parameters with gradients. null: not known."""
    tokens: int | None = None
    """Tokens of the training, without padding. null: not known."""
    flops: float | None = None
    """Floating-point operations of the training. null: not known."""
    forward_flops: float | None = None
    """Floating-point operations a token of a forward pass on the stage's task after it. null: not known."""
    stored_mb: float | None = None
    """What the stage keeps on disk for later stages and for use, in 10^6 bytes. null: not known."""
    seconds: float | None = None
    """Wall-clock time of learning, in seconds. null: not known."""
    peak_rss_mb: float | None = None
    """Peak resident memory of the process by the end of the stage, in MiB. null: not known."""
    peak_gpu_mb: float | None = None
    """Peak GPU memory of the process by the end of the stage, in MiB. null: no GPU, or not known."""
    layers: list[int] | None = None
    """Layers that got new experts. null: the method adds none."""
    change: list[float] | None = None
    """Change of every layer's router in the probe (d_j of docs/method.md). null: no probe."""
    files: dict[str, KeptFile] = Field(default_factory=dict)
    """Name of a file in the stage's folder -> size and digest; weights are named by `extension.json` instead."""
    notes: dict[str, Any] = Field(default_factory=dict)
    """Further facts that the method noted, such as `loss`. No table shows them."""

    @classmethod
    def former(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The method's further facts stood beside the others."""
        more = {key: value for key, value in values.items() if key not in cls.model_fields}
        kept = {key: value for key, value in values.items() if key in cls.model_fields}
        return {**kept, "notes": {**more, **kept.get("notes", {})}} if more else kept

    @classmethod
    def of(cls, facts: dict[str, Any], *, where: str) -> Self:
        """The record of what a method noted and of what was measured, in one mapping."""
        return cls.parse({**facts, "schema_version": 0}, where=where, hint="Correct the method's `learn`.")


class TaskRouting(BaseModel):
    """Where the tokens of one task went, on held-out training conversations."""

    model_config = Record.model_config

    tokens: int
    """Tokens that were looked at."""
    experts: list[dict[str, list[int]]]
    """Block by block: extension ("": the base) -> tokens that each of its experts computed."""
    reached: list[dict[str, float]]
    """Block by block: extension -> part of the tokens that reach any of its experts, 0..1."""
    drift: list[float] | None = None
    """Block by block: divergence in nats from the choices at the stage where the task was learned. null: that stage."""


class InferredTask(BaseModel):
    """Which extensions the inputs of one task are taken for."""

    model_config = Record.model_config

    inputs: int
    """Inputs that were looked at."""
    reached: dict[str, float]
    """Extension ("": none, the base answers) -> part of the inputs, 0..1."""


class Inferred(BaseModel):
    """Task inference of a method that is not given the task."""

    model_config = Record.model_config

    rejected: dict[str, float]
    """Extension -> part of its own inputs that its threshold rejects at most in expectation, 0..1."""
    tasks: dict[str, InferredTask]
    """Task of the sequence, learned or not, and (text), the generic text."""


class RoutingReport(Record):
    """`stages/<t>-<task>/routing.json`: which experts the learned tasks reach after a stage; no score depends on it."""

    tasks: dict[str, TaskRouting]
    """Task learned by then, and (text), the generic text."""
    layers: list[int] | None = None
    """Layers that got new experts in this stage. null: the method adds none."""
    change: list[float] | None = None
    """Change of every layer's router in the probe (d_j of docs/method.md). null: no probe."""
    inferred: Inferred | None = None
    """Task inference. null: the method infers nothing."""
    oracle: dict[str, float | None] | None = None
    """Task -> final score in percent with its own extension forced on; null where that cannot stand alone. Empty: the
    method is given the task anyway. null as a whole: not asked for, or not the last stage."""


class RunFacts(Record):
    """`facts.json`: what became known while running."""

    task_identity: TaskIdentity | None = None
    """What the method knows of the task at inference: given, inferred or none. null: row 0 is not scored yet."""
    text_untouched: bool | None = None
    """Whether no input without an image reaches what was learned. null: not known; see docs/statistics.md."""
    majority: dict[str, float | None] | None = None
    """Learned image task -> percent that the majority answer reaches (no image); null if the task has no training
    items. null as a whole: row 0 is not scored yet."""
    base_flops: dict[str, float] | None = None
    """Stage's name -> floating-point operations a token of the base's forward pass on its task. null: as above."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The method's settings with all defaults, as a record for readers: defaults may differ between releases."""
    data: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Task -> split -> digest of its data. A run is refused if they change."""
    plugins: dict[str, dict[str, str]] = Field(default_factory=dict)
    """`method` or `scorer NAME` -> where a plug-in came from. A run is refused if it changes."""
    revisions: dict[str, str] = Field(default_factory=dict)
    """Task -> commit of its data set on the Hugging Face Hub, as a record for readers."""

    @classmethod
    def former(cls, values: dict[str, Any]) -> dict[str, Any]:
        """In early versions `told` was true if the task is given."""
        known = {True: "given", False: "none"}.get(values.get("told"))  # type: ignore[arg-type]
        return {"task_identity": known, **values} if known else values

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`majority` was `blind` in files of early versions, with and without `schema_version`."""
        return {"majority": values["blind"], **values} if "blind" in values else values


class RunError(BaseModel):
    """Why a run failed; passwords are masked."""

    model_config = Record.model_config

    what: str | None
    """What is wrong. null: not known."""
    where: str | None
    """Its place: a file, a setting, a stage. null: not known."""
    hint: str | None
    """The way out. null: none is known."""


class Status(Record):
    """`status.json`: how far a run is. Written about twice a second while it works."""

    state: State = "waiting"
    """waiting, running, done, failed or interrupted."""
    pid: int | None = None
    """Number of the process that works on the run. null: it did not start."""
    host: str = ""
    """Name of its machine."""
    born: str | None = None
    """Start time of the process, which tells it from a later one with the same number. null: not known."""
    started: float | None = None
    """When this attempt began, in seconds since 1970. null: it did not start."""
    heartbeat: float | None = None
    """When this file was written, in seconds since 1970. null: it did not start."""
    elapsed: float = 0.0
    """Seconds since this attempt began; earlier attempts are not counted."""
    phase: str | None = None
    """What it is at: align, probe, train or score. null: nothing."""
    stage: int = 0
    """The stage that it is at; 0 is the base."""
    stages: int = 0
    """Stages of the sequence."""
    task: str | None = None
    """The task that it is at. null: none."""
    step: int = 0
    """Steps done of what it is at: of a training, or per cent of a scoring."""
    steps: int = 0
    """All of these steps."""
    done: int = 0
    """Units done: a training of a stage or the scoring of a cell is one."""
    units: int = 0
    """All units."""
    fraction: float = 0.0
    """Part of the work that is done, 0..1: by time where it is known, else by units."""
    left: float | None = None
    """Seconds left. null: a phase that is still to come has not been measured."""
    error: RunError | None = None
    """Why it failed. null: it did not."""
    run: str = ""
    """Id of the run; "" in files of former runs."""
    config: str = ""
    """Digest of the config that was worked on: "done" holds for that one alone; "" in files of former runs."""

    @classmethod
    def former(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The hint of an error was called `mend`."""
        error = values.get("error")
        if isinstance(error, dict) and "mend" in error:
            return {**values, "error": {"hint": error["mend"], **error}}
        return values
