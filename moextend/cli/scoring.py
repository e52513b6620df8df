"""`bench score`: scores models that were trained elsewhere, stage by stage."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from moextend.bench.checkpoints import Checkpoint, complete_in, parse_stage, read_stages
from moextend.bench.executors import submitting
from moextend.bench.run import preflight
from moextend.bench.run.inputs import refuse_other_checkpoints
from moextend.bench.run.opening import folder_of
from moextend.bench.run.plan import Request, resolve_scored
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from moextend.bench.task import ALLOW_CODE
from moextend.cli import executing, options
from moextend.cli.command import grouped
from moextend.cli.runs import open_all, print_reports
from moextend.cli.status import records
from moextend.errors import InputError
from moextend.model import sources
from moextend.util import lookup
from moextend.util.lookup import MOST_SEED

SETTLED = 5.0
"""Seconds without a change after which a complete checkpoint counts as written."""
LOOK_EVERY = 5.0
"""Seconds between two looks at the folder of `--watch`."""


@grouped
def score(
    name: options.Name = None,
    method: Annotated[
        str, Option("--name", metavar="METHOD", help="Name of the method that trained them.")
    ] = "",
    stage: Annotated[
        list[str] | None,
        Option(
            "--stage",
            metavar="MODEL",
            help="The base, then the model after each stage: a folder saved by transformers, a hub id (me/model@v2), "
            "or the folder of a peft adapter; repeatable, in order.",
        ),
    ] = None,
    stages: Annotated[
        Path | None,
        Option(metavar="FILE", exists=True, dir_okay=False, help="YAML with a list of the stages instead."),
    ] = None,
    watch: Annotated[
        Path | None,
        Option(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="Score the models after the named ones as a trainer writes them here, in the order of their numbers.",
        ),
    ] = None,
    pattern: Annotated[str, Option(metavar="GLOB", help="Names of the models in --watch.")] = "*",
    processor: Annotated[
        str | None,
        Option(metavar="MODEL", help="Folder or hub id of the processor. Default: that of each model."),
    ] = None,
    dtype: Annotated[
        str, Option(help="Number type of the weights: auto (that of each model), float32, bfloat16, ...")
    ] = "auto",
    task_id: Annotated[
        str,
        Option(metavar="WHAT", help="What the method knows of the task at inference: none, given, inferred."),
    ] = "none",
    seed: Annotated[
        int, Option(min=0, max=MOST_SEED, help="Seed of the training, which tells runs apart.")
    ] = 0,
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run the Python code that comes with the models.")
    ] = False,
    allow_code: options.AllowCode = False,
    limit: options.Limit = None,
    *,
    execution: executing.Execution,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Score models that were trained elsewhere on a sequence of tasks; print what they learned and forgot.

    Nothing is trained. With fewer models than stages the run waits for the others: the same command with more of them
    continues.
    """  # fmt: skip
    if allow_code:
        os.environ[ALLOW_CODE] = "1"  # the worker processes inherit it
    if not method:
        raise InputError("is missing.", where="--name", hint="Name the method that trained the models.")
    lookup.choose("task id", task_id, dict.fromkeys(("none", "given", "inferred")), where="--task-id")
    given = {"processor": processor, "dtype": dtype, "trust_remote_code": trust_remote_code}
    request = Request(
        workspace=workspace, sequence=name, seeds=(seed,),
        device=options.device(execution.device), limit=limit,
    )  # fmt: skip
    settings = {key: value for key, value in given.items() if value not in (None, False, "auto")}
    named = _stages(stage, stages, settings)
    if watch is None:
        score_stages(request, method, named, task_id, execution, as_json=as_json)
        return
    try:
        for found in _grown(named, watch, pattern, len(request.read[0].stages) + 1, settings):
            score_stages(request, method, found, task_id, execution, as_json=as_json, watched=True)
    except KeyboardInterrupt:
        typer.echo(executing.GO_ON, err=True)
        raise typer.Exit(130) from None


def _grown(
    named: list[Checkpoint], folder: Path, pattern: str, most: int, settings: dict[str, Any]
) -> Iterator[list[Checkpoint]]:
    """Yields the stages each time that there are more of them, until there are `most`."""
    known = 0
    while known < most:
        words = [str(path) for path in complete_in(folder, pattern, SETTLED)][: most - len(named)]
        if len(named) + len(words) > known:
            known = len(named) + len(words)
            yield [*named, *(parse_stage(word, "--watch", **settings) for word in words)]
        else:
            time.sleep(LOOK_EVERY)


def _stages(words: list[str] | None, file: Path | None, settings: dict[str, Any]) -> list[Checkpoint]:
    """The checkpoints that a command names."""
    if (words is None) == (file is None):
        what = "is missing." if words is None else "cannot be combined with --stages."
        raise InputError(what, where="--stage", hint="Name the models one by one, or a YAML that lists them.")
    if file is not None:
        return read_stages(file, **settings)
    return [parse_stage(word, **settings) for word in words or ()]


def score_stages(
    request: Request,
    method: str,
    checkpoints: list[Checkpoint],
    task_id: str,
    execution: executing.Execution,
    *,
    as_json: bool,
    watched: bool = False,
) -> None:
    """Scores checkpoints in the run of their method, and prints the table so far."""
    workspace, folder = request.workspace, request.workspace / "runs"
    config = resolve_scored(request, method, checkpoints, task_id, lambda line: typer.echo(line, err=True))
    sequence = config.sequence_spec
    tasks = {name: config.task_spec(name) for name in config.tasks}
    preflight.check(sequence, tasks, workspace)
    _warn_of_copies(checkpoints)
    how = execution.chosen([config], folder, workspace)
    preflight.check_here(
        sequence, tasks, workspace, device=request.device if how.local else None, runs=folder
    )
    executing.check(how)
    path = folder_of(config, folder)
    refuse_other_checkpoints(RunDir(path), config)
    if read_status(path).state != "done":
        for one in checkpoints:
            if one.server is None:
                sources.check_hub(sources.find(one.model), revision=one.revision, where=f"--stage {one.word}")
    busy = submitting.busy([path], workspace)
    opened, to_do = open_all([config], folder, set(busy))
    outcomes = executing.execute(how, opened, to_do, busy)
    if as_json:
        typer.echo(json.dumps(records(opened, workspace), indent=2))
    elif outcomes is not None:
        print_reports(opened, workspace, (), unfinished=True)
        if len(checkpoints) <= len(config.stages):
            waits = f"stage {len(checkpoints)} ({config.stages[len(checkpoints) - 1]})"
            then = "this command goes on" if watched else "the same command with one more --stage continues"
            typer.echo(f"waiting for {waits}: {then}.", err=True)
    executing.end(outcomes or [])


def _warn_of_copies(checkpoints: list[Checkpoint]) -> None:
    """Names models that stand for several stages."""
    words = [one.word for one in checkpoints]
    for word in dict.fromkeys(word for word in words if words.count(word) > 1):
        stages = " and ".join(str(stage) for stage, other in enumerate(words) if other == word)
        options.echo(f"warning: '{word}' is the model of stages {stages}.", err=True)
