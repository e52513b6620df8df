"""What a run knows about an extension: its base, its data, its row of forgetting, and what its model card says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.exporting.stage import StageName
from moextend.bench.report import collect
from moextend.bench.report.collect import Result
from moextend.bench.report.explain import command
from moextend.bench.run import models
from moextend.bench.run.config import stage_name
from moextend.bench.run.context import RunContext
from moextend.bench.run.rundir import RunDir, run_name
from moextend.bench.run.stage import stage_seed
from moextend.certificate.certify import Data
from moextend.certificate.record import Claim, Fact, claim
from moextend.errors import InputError
from moextend.extension import tensor_files
from moextend.sharing.model_card import RunFacts, TaskResult

if TYPE_CHECKING:
    from moextend import MultimodalLM
    from moextend.data.conversations import Conversation
    from moextend.moe.recipe import Scope


ROW = {
    "la": "learning accuracy (LA)", "acc": "final accuracy (ACC)", "fm": "forgetting (FM)",
    "bwt": "backward transfer (BWT)", "text_before": "text before", "text_after": "text after",
    "text_change": "change of text",
}  # fmt: skip
"""Metric of a run -> its name in the evidence; all in points."""
NO_SCORES = "the run has no scores."


@dataclass(frozen=True)
class StageEvidence:
    """A stage of a run as an extension to certify."""

    folder: Path
    task: str
    base: str
    """Name of the base."""
    model: MultimodalLM
    """The base, with its encoders and aligned projectors."""
    scope: Scope
    others: list[Path]
    """Folders of its co-active extensions."""
    data: Data
    """Held-out training data of its task, and of the other tasks."""
    forgetting: Claim


def of_stage(named: StageName) -> StageEvidence:
    """The extension of a stage, with its base and data.

    Raises:
        InputError: the run has no such stage, or its method makes no extensions.
    """
    context = RunContext(named.run)
    number, folder = _extension(context, named)
    scope: Scope | None = getattr(context.method.config, "scope", None)
    if scope is None:
        raise _no_extension(number, folder)
    earlier = [
        folder_of(named.run, i, stage_name(names)) for i, names in enumerate(context.stages[: number - 1], 1)
    ]
    spec = context.sequence.base
    return StageEvidence(
        folder, stage_name(context.stages[number - 1]), str(spec.found(context.workspace)),
        models.base(context), scope, earlier if scope == "all" else [], _data(context, number),
        forgetting_claim(named.run, folder),
    )  # fmt: skip


def extension_of(named: StageName) -> Path:
    """Folder of the extension of a stage; InputError if there is none."""
    return _extension(RunContext(named.run), named)[1]


def _extension(context: RunContext, named: StageName) -> tuple[int, Path]:
    """Number of a stage, and the folder of its extension."""
    number = named.number(len(context.stages))
    folder = folder_of(named.run, number, stage_name(context.stages[number - 1]))
    if not tensor_files.is_complete(folder):
        raise _no_extension(number, folder)
    return number, folder


def _no_extension(number: int, folder: Path) -> InputError:
    return InputError(
        f"stage {number} holds no extension.", where=str(folder),
        hint="Finish the run, with a method that trains extensions (moextend).",
    )  # fmt: skip


def forgetting_claim(run: RunDir, extension: Path) -> Claim:
    """The claim that an extension is a stage of a run, with the run's row of forgetting."""
    evidence: dict[str, Fact] = {"run": run_name(run.folder)}
    stage = stage_with(run, extension)
    if stage is None:
        return claim("forgetting", "failed", reason=no_stage(run), evidence=evidence)
    result = result_of(run)
    if result is None:
        return claim("forgetting", "not checked", reason=NO_SCORES, evidence=evidence)
    evidence["stage"], evidence["method"] = stage, result.config.method
    evidence["task id"] = result.facts.task_identity or "?"
    evidence["tasks"], evidence["text tasks"] = list(result.tasks), list(result.text)
    evidence |= row_of(result)
    if result.bare:
        reason = "the run is from a pack without predictions."
        return claim("forgetting", "not checked", reason=reason, evidence=evidence)
    if result.state != "done" or result.lacks:
        return claim("forgetting", "not checked", reason="the run is not done.", evidence=evidence)
    return claim("forgetting", "proved", items=len(result.cells), evidence=evidence)


def result_of(run: RunDir) -> Result | None:
    """What a run scored; None if it has no scores."""
    found = collect.collect([run], unfinished=True)
    return next((one for experiment in found for one in experiment.results), None)


def row_of(result: Result) -> dict[str, float]:
    """The row of forgetting, by the names of `ROW`; in points."""
    return {ROW[key]: value for key, value in result.summary.items() if key in ROW and value is not None}


def no_stage(run: RunDir) -> str:
    """Why an extension does not belong to a run."""
    return f"no stage of the run '{run_name(run.folder)}' has these weights."


def folder_of(run: RunDir, number: int, task: str) -> Path:
    """Folder of a stage; none is made."""
    found = next(iter(run.folder.glob(f"stages/{number}-*")), None)
    return found or run.folder / "stages" / f"{number}-{task}"


def stage_with(run: RunDir, extension: Path) -> str | None:
    """Name of the folder of the stage that has the weights of an extension; None if none has."""
    digest = tensor_files.read_card(extension).get("sha256")
    for folder in sorted(run.folder.glob("stages/*")):
        if tensor_files.is_complete(folder) and tensor_files.read_card(folder).get("sha256") == digest:
            return folder.name
    return None


def _data(context: RunContext, number: int) -> Data:
    """Held-out training data of the stage's tasks, and of the tasks of the other stages."""

    def held_out(names: list[str]) -> list[Conversation]:
        seed = stage_seed(context.config.seed, stage_name(names))
        return list(models.learning_data(context, names, seed).held_out)

    others = [names for i, names in enumerate(context.stages, 1) if i != number]
    return Data(own=held_out(context.stages[number - 1]), near=list(chain(*map(held_out, others))))


def run_facts(run: RunDir, extension: Path) -> RunFacts:
    """What the run says of the extension in a folder.

    Raises:
        InputError: the extension is no stage of the run, or the run has no scores.
    """
    stage, result = stage_with(run, extension), result_of(run)
    if stage is None or result is None:
        reason = no_stage(run) if stage is None else NO_SCORES
        raise InputError(reason, where="--run", hint="Name the run that made the extension.")
    context = RunContext(run)
    learned = [_result(context, result, task, i) for i, task in enumerate(result.tasks, 1)]
    text = [_result(context, result, task, None) for task in result.text]
    spec = context.sequence.base
    scope = str(getattr(context.method.config, "scope", ""))
    return RunFacts(
        name=run_name(run.folder), stage=stage, method=str(result.config.method),
        task_identity=result.facts.task_identity or "?", row=row_of(result), tasks=[*learned, *text],
        base="" if spec.upcycle is not None else str(spec.model), scope=scope,
        command=command(result.config, anywhere=True),
    )  # fmt: skip


def _result(context: RunContext, result: Result, task: str, stage: int | None) -> TaskResult:
    spec = context.tasks[task]
    before, last = (result.row(number, [task])[0] for number in (0, result.last))
    when = result.row(stage, [task])[0] if stage is not None and stage <= result.last else None
    return TaskResult(
        task,
        "accuracy" if spec.kind == "text" else spec.scorer,
        "text" if stage is None else "learned",
        before,
        when,
        last,
        spec.licence,
    )
