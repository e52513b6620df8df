"""`bench run`: trains methods on a sequence, and scores what is asked for of the last models."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import typer

from moextend.bench.audit.duplicates import overlap
from moextend.bench.executors import submitting
from moextend.bench.report import View
from moextend.bench.report.collect import collect
from moextend.bench.report.style import find_style
from moextend.bench.run import preflight, variants
from moextend.bench.run.complete import lacks, names_of
from moextend.bench.run.inputs import Memo, refuse_other_inputs
from moextend.bench.run.opening import folder_of, named_apart, open_runs
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.preview import describe, preview
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunConfig, RunDir, run_name
from moextend.bench.run.variants import Variant, score_variants
from moextend.bench.task import ALLOW_CODE, TaskSpec
from moextend.cli import executing, options
from moextend.cli.command import grouped
from moextend.cli.reports import print_styled
from moextend.cli.status import records
from moextend.errors import InputError, MoextendError, RunFailed, counted
from moextend.util import lookup
from moextend.util.quiet import quiet_loggers, quiet_process


@grouped
def run(
    name: options.Name = None,
    sequence: options.InSequence = True,
    method: options.Methods = None,
    seed: options.Seeds = None,
    order: options.Orders = None,
    match: options.Match = "steps",
    also: options.Also = None,
    allow_code: options.AllowCode = False,
    limit: options.Limit = None,
    steps: options.Steps = None,
    align_steps: options.AlignSteps = None,
    deterministic: options.Deterministic = False,
    *,
    execution: executing.Execution,
    backend: options.Backend = None,
    backend_option: options.BackendOptions = None,
    dry_run: options.DryRun = False,
    prepare: options.Prepare = False,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Train one or several methods on a sequence of tasks; print what they learn and forget.

    Run the same command again after an interruption: only what is missing is done. The command waits for runs that it
    executes itself; a scheduler only gets them.
    """
    if allow_code:
        os.environ[ALLOW_CODE] = "1"  # the worker processes inherit it
    more, device = _also(also or []), options.device(execution.device)
    request = Request(
        workspace=workspace, sequence=name, methods=tuple(options.methods(method or [])),
        seeds=tuple(options.numbers(seed or ["0"], "--seed")),
        orders=tuple(options.words(order or ["given"], "--order")),
        device=device, limit=limit, steps=steps, align_steps=align_steps, match=match, oracle="oracle" in more,
        deterministic=deterministic, backend=executing.backend(backend, backend_option or []),
    )  # fmt: skip
    configs = resolve(
        request,
        lambda line: typer.echo(line, err=True),
        lambda problem: options.echo(f"left out: {problem}", err=True),
    )
    folder = workspace / "runs"
    configs = named_apart(configs, folder, lambda words: options.echo(words, err=True))
    others = {"--dry-run": dry_run, "--prepare": prepare, "--executor": execution.executor != "local"}
    asked = _variants(more, configs, [name for name, given in others.items() if given])
    planned, tasks, _ = request.read
    preflight.check(planned, tasks, workspace)
    paths = [folder_of(config, folder) for config in configs]
    how = execution.chosen(configs, folder, workspace)
    if dry_run:
        script = None if as_json else executing.scripts(how, paths)
        options.echo(script or _preview(request, configs, folder, as_json=as_json))
        return
    work = any(read_status(path).state != "done" for path in paths)
    if work:
        _warn_of_overlaps([tasks[stage.task] for stage in planned.stages], workspace)
    if not prepare:
        device_here = device if how.local else None
        preflight.check_here(
            planned, tasks, workspace, device=device_here, runs=folder if work else None, seeds=request.seeds
        )
        executing.check(how)
        find_style(None, workspace)  # a wrong one is refused before the runs
        executing.check_server(how, planned.scoring if work else None)
    busy = submitting.busy(paths, workspace)
    opened, to_do = open_all(configs, folder, set(busy))
    if prepare:
        ready = [str(run.folder.resolve()) for run in to_do]
        typer.echo(
            json.dumps(ready, indent=2) if as_json else "".join(f"{path}\n" for path in ready), nl=as_json
        )
        return
    outcomes = executing.execute(how, opened, to_do, busy)
    score_variants_of(opened, asked)
    if as_json:
        typer.echo(json.dumps(records(opened, workspace), indent=2))
    elif outcomes is not None:
        print_reports(opened, workspace, more)
    executing.end(outcomes or [])


def _also(values: Sequence[str]) -> list[str]:
    """What is scored besides; InputError for an unknown word."""
    for value in values:
        lookup.choose("score", value, dict.fromkeys(("oracle", "rewind", "subsets")), where="--also")
    return list(dict.fromkeys(values))


def _variants(
    also: Sequence[str], configs: Sequence[RunConfig], others: Sequence[str]
) -> dict[str, list[Variant]]:
    """Digest of a config -> its scaled and left-out variants, before anything runs; names runs that have none.

    Raises:
        InputError: no run has such variants, or one of `others` is given, options that do not go with them.
    """
    found: dict[str, list[Variant]] = {}
    for what in (word for word in also if word != "oracle"):
        subsets, where = what == "subsets", f"--also {what}"
        options.refuse_with(where, others)
        refused = {one.slug: why for one in configs if (why := variants.refusal(one, subsets=subsets))}
        if len(refused) == len(configs):
            raise InputError(f"{next(iter(refused.values()))}.", where=where, hint="Name another method.")
        for name, why in refused.items():
            options.echo(f"{where} leaves out {name}: {why}.", err=True)
        for config in (one for one in configs if one.slug not in refused):
            own = variants.subsets(config) if subsets else variants.rewound(config)
            found[config.digest] = list(dict.fromkeys([*found.get(config.digest, []), *own]))
    return found


def score_variants_of(runs: Sequence[RunDir], asked: Mapping[str, Sequence[Variant]]) -> None:
    """Scores the missing cells of the variants of runs that are done, one after the other in this process.

    Raises:
        RunFailed: a cell cannot be scored; the others are.
    """
    quiet_process()
    failed: list[str] = []
    for run in runs:
        own, name = asked.get(run.config.digest) if asked else None, run_name(run.folder)

        def say(cell: str, name: str = name) -> None:
            typer.echo(f"{name}: {cell}", err=True)

        if own and read_status(run.folder).state == "done":
            try:
                failed += [f"{name}, {what}" for what in score_variants(run, own, say)]
            except KeyboardInterrupt:
                typer.echo(executing.GO_ON, err=True)
                raise typer.Exit(130) from None
    if failed:
        what = f"{counted(len(failed), 'cell')} of variants could not be scored; the first: {failed[0]}"
        raise RunFailed(what, where="bench run", hint="Remove the cause and run the same command again.")


def _warn_of_overlaps(tasks: Sequence[TaskSpec], workspace: Path) -> None:
    """Warns of tasks whose test items are in their training data; what cannot be read is an error of the run."""
    for task in {task.task: task for task in tasks}.values():
        with suppress(MoextendError, OSError):
            if found := overlap(task, workspace):
                options.echo(
                    f"warning: {found}: their score measures memory (moextend bench audit).", err=True
                )


def open_all(
    configs: list[RunConfig], runs: Path, busy: Collection[Path]
) -> tuple[list[RunDir], list[RunDir]]:
    """Folders of all runs, and those with work to do that no job has; if one is refused, nothing changes."""
    incomplete: dict[Path, str] = {}
    memo: Memo = {}

    def has_work(run: RunDir) -> bool:
        if run.folder in busy:
            return False
        if read_status(run.folder).state != "done":
            return True
        refuse_other_inputs(run, memo)
        lacking = lacks(run)
        if lacking:
            incomplete[run.folder] = names_of(lacking)
        return bool(lacking)

    def report_change(run: RunDir, words: str) -> None:
        typer.echo(f"{run_name(run.folder)}: {words}", err=True)

    opened = open_runs(configs, runs, must_be_free=has_work, on_change=report_change)
    left = [run for run in opened if run.folder in incomplete or read_status(run.folder).state != "done"]
    to_do = [run for run in left if run.folder not in busy]
    for folder, what in incomplete.items():
        typer.echo(f"{folder.name} was done, but lacks {what}. It is computed again.", err=True)
    return opened, to_do


def print_reports(
    opened: list[RunDir], workspace: Path, also: Collection[str], *, unfinished: bool = False
) -> None:
    """Prints the forgetting table, and the views of the variants."""
    found = collect(opened, unfinished=unfinished)
    experiments = [experiment for experiment in found if experiment.results]
    print_styled(experiments, workspace)
    views: tuple[View, ...] = ("rewind", "subsets")
    for view in views:
        if view in also:
            typer.echo("")
            print_styled(experiments, workspace, view)


def _preview(request: Request, configs: list[RunConfig], runs: Path, *, as_json: bool) -> str:
    """What a command would do."""
    with quiet_loggers("bitsandbytes"):  # peft imports it, where it is installed
        found = preview(request, configs, runs=runs)
    return json.dumps(found, indent=2) if as_json else describe(found)
