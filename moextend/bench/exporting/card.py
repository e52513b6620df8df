"""What a run says of an extension in its model card: results, row of forgetting, licences, command."""

from __future__ import annotations

import shlex
from pathlib import Path

from moextend.bench.exporting import evidence
from moextend.bench.report.collect import Result
from moextend.bench.run.context import RunContext
from moextend.bench.run.rundir import RunDir, run_name
from moextend.errors import InputError
from moextend.sharing.model_card import RunFacts, TaskResult


def run_facts(run: RunDir, extension: Path) -> RunFacts:
    """What the run says of the extension in a folder.

    Raises:
        InputError: the extension is no stage of the run, or the run has no scores.
    """
    stage, result = evidence.stage_with(run, extension), evidence.result_of(run)
    if stage is None or result is None:
        reason = evidence.no_stage(run) if stage is None else evidence.NO_SCORES
        raise InputError(reason, where="--run", hint="Name the run that made the extension.")
    context = RunContext(run)
    learned = [_result(context, result, task, i) for i, task in enumerate(result.tasks, 1)]
    text = [_result(context, result, task, None) for task in result.text]
    spec = context.sequence.base
    made = ["moextend", "bench", "run", context.sequence.sequence, "--method", str(result.config.method)]
    scope = str(getattr(context.method.config, "scope", ""))
    return RunFacts(
        name=run_name(run.folder), stage=stage, method=str(result.config.method),
        task_identity=result.facts.task_identity or "?", row=evidence.row_of(result), tasks=[*learned, *text],
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
