"""A stage of a run as a source of an export."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.run.context import RunContext
from moextend.bench.run.inputs import base_revision
from moextend.bench.run.rundir import RunDir, find_run, run_name
from moextend.errors import InputError, UnknownName

if TYPE_CHECKING:
    from moextend import MultimodalLM
    from moextend.bench.methods.method import Method


@dataclass(frozen=True)
class StageName:
    """A run and one of its stages; 0: the last."""

    run: RunDir
    stage: int

    def number(self, stages: int) -> int:
        """The stage, of a run with so many; InputError if it has none of this number."""
        number = self.stage or stages
        if not 1 <= number <= stages:
            raise InputError(
                f"the run has stages 1 to {stages}, not {number}.", where=str(self.run.folder),
                hint="Name one of them: RUN:STAGE.",
            )  # fmt: skip
        return number


@dataclass(frozen=True)
class StageModel:
    """The model of a run after a stage, prepared for the inputs of a task; on the CPU."""

    model: MultimodalLM
    method: Method
    task: str
    learned: list[str]
    """Tasks of the stages so far."""
    base: str
    """Name that the base is loaded by; "" for one that the run itself made (upcycle)."""
    name: str
    """RUN:STAGE."""
    encoders: dict[str, str] = field(default_factory=dict)
    """Modality -> name of its encoder."""
    resize: str | None = None
    revision: str | None = None
    """Revision of a base from the hub."""


def find(source: str, runs: Path) -> StageName:
    """Stage that `source` names: RUN:STAGE, a run (its last stage), or the folder of a stage.

    Raises:
        InputError: there is no such run, or several.
    """
    path = Path(source)
    if path.parent.name == "stages" and (path.parent.parent / "config.json").is_file():
        number = re.match(r"[0-9]+", path.name)
        return StageName(RunDir(path.parent.parent), int(number[0]) if number else 0)
    name, _, stage = source.rpartition(":")
    if not name or not stage.isdecimal():
        name, stage = source, "0"
    try:
        return StageName(find_run(runs, name, where="EXTENSION"), int(stage))
    except UnknownName as error:
        error.what = f"'{name}' is not the folder of an extension, and there is {error.what}"
        raise


def opened(named: StageName, task: str | None = None) -> StageModel:
    """The model of a run after a stage, prepared for inputs of `task`; None: the task of the stage.

    A method that infers the task is given it. A task that the run has not learned gives the base where the method is
    given the task, as for texts in the run's table.

    Raises:
        InputError: the run has not learned that stage.  UnknownName: the run has no such task.
    """
    from moextend.bench.run.models import refuse_scored, restored_stages

    refuse_scored(named.run)
    context = RunContext(named.run)
    last = named.number(len(context.stages))
    if task is not None and task not in context.scored:
        raise UnknownName("task of the run", task, context.scored, where="--task")
    _, model, learned = deque(restored_stages(context, last), maxlen=1).pop()
    method = context.method
    if method.task_identity == "inferred":
        method = method.with_given_task() or method
    wanted = learned[-1] if task is None else task
    method.select(model, wanted, learned)
    model.choose = None
    model.to("cpu").lm.set_experts_implementation(
        "eager"
    )  # as transformers is asked to compute what is written
    spec = context.sequence.base
    base = "" if spec.upcycle is not None else str(spec.found(context.workspace))
    return StageModel(
        model, method, wanted, learned, base, f"{run_name(named.run.folder)}:{last}",
        encoders=spec.encoders_in(context.workspace), resize=spec.resize,
        revision=base_revision(context.run, spec, context.workspace),
    )  # fmt: skip
