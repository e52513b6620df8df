"""What a run says of an extension in its model card: results, row of forgetting, licences, command."""

from __future__ import annotations

import shlex
from pathlib import Path

from moextend.bench.exporting.evidence import ROW, folder_of, forgetting_claim
from moextend.bench.exporting.stage import StageName
from moextend.bench.report import collect
from moextend.bench.report.collect import Result
from moextend.bench.report.forgetting import summary
from moextend.bench.run.context import RunContext
from moextend.bench.run.rundir import RunDir, run_name
from moextend.errors import InputError
from moextend.extension import tensor_files
from moextend.sharing.facts import RunFacts, TaskResult


def stage_folder(named: StageName) -> Path:
    """Folder of the extension of a stage; InputError if there is none."""
    context = RunContext(named.run)
    number = named.stage or len(context.stages)
    folder = folder_of(named.run, number, "")
    if not tensor_files.is_complete(folder):
        raise InputError(
            f"stage {number} of the run holds no extension.", where=str(named.run.folder),
            hint="Name a stage of the method moextend that is learned: RUN:STAGE.",
        )  # fmt: skip
    return folder


def run_facts(run: RunDir, extension: Path) -> RunFacts:
    """What the run says of the extension in a folder.

    Raises:
        InputError: the extension is no stage of the run, or the run has no scores.
    """
    claim = forgetting_claim(run, extension)
    results = [one for found in collect.collect([run], unfinished=True) for one in found.results]
    if claim.status == "failed" or not results:
        raise InputError(
            claim.reason or "the run has no scores.", where="--run", hint="Name the run that made the extension."
        )  # fmt: skip
    result, context, stage = results[0], RunContext(run), str(claim.evidence["stage"])
    number = int(stage.partition("-")[0])
    names = context.stages[number - 1]
    row = {ROW[key]: value for key, value in summary(result).items() if key in ROW and value is not None}
    learned = [_result(context, result, task, i) for i, task in enumerate(result.tasks, 1)]
    text = [_result(context, result, task, None) for task in result.text]
    spec = context.sequence.base
    made = ["moextend", "bench", "run", context.sequence.sequence, "--method", str(result.config.method)]
    scope = str(getattr(context.method.config, "scope", ""))
    return RunFacts(
        name=run_name(run.folder), stage=stage, task=", ".join(names), method=str(result.config.method),
        task_identity=result.facts.task_identity or "?", row=row, tasks=[*learned, *text],
        base="" if spec.upcycle is not None else str(spec.model), scope=scope,
        command=shlex.join([*made, "--seed", str(result.config.seed)]),
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
