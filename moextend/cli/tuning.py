"""`bench tune`: chooses the settings of methods on validation items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import executing, options, runs
from moextend.cli.output import output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moextend.bench.tuning.results import Tried
    from moextend.bench.tuning.trials import Planned
    from moextend.bench.workspace.edit import Draft


def tune(
    name: options.Name = None,
    method: options.Methods = None,
    budget: Annotated[int, typer.Option("--budget", metavar="N", help="Trials per method.")] = 8,
    seed: Annotated[
        list[str] | None,
        typer.Option("--seed", metavar="N", help="Seeds of every trial, at least two. Default: 0,1."),
    ] = None,
    tasks: Annotated[
        int, typer.Option("--tasks", metavar="N", help="Number of tasks to train on, from the first.")
    ] = 2,
    validation: Annotated[
        int,
        typer.Option(
            "--validation", metavar="PERCENT", help="Share of the training data held out to score the trials."
        ),
    ] = 10,
    search_seed: Annotated[
        int, typer.Option("--search-seed", min=0, help="Seed of the search: chooses the settings to try.")
    ] = 0,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="SEQUENCE", help="Write to a copy of the sequence with this name."),
    ] = None,
    skip_failed: Annotated[
        bool, typer.Option("--skip-failed", help="Choose among the other trials if some failed.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Only show the trials and their scores.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of validation items per task.")
    ] = None,
    steps: options.Steps = None,
    device: options.Device = "auto",
    deterministic: options.Deterministic = False,
    jobs: options.Jobs = None,
    executor: options.Executor = "local",
    executor_option: options.ExecutorOptions = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Choose each method's settings with the same budget, on validation items of the first tasks.

    Run the same command again after an interruption: only what is missing is done. A larger budget adds trials.
    """
    from moextend.bench.run.plan import Request
    from moextend.bench.tuning import results
    from moextend.bench.tuning import show as shown
    from moextend.bench.tuning.trials import Search, plan
    from moextend.bench.tuning.writing import draft_of

    request = Request(
        workspace=workspace, sequence=name, methods=tuple(options.methods(method or [])),
        seeds=tuple(options.numbers(seed or ["0,1"], "--seed")), device=options.device(device), limit=limit,
        steps=steps, deterministic=deterministic,
    )  # fmt: skip
    search = Search(request, budget, tasks, validation, search_seed)
    planned = plan(search, lambda problem: options.echo(f"left out: {problem}", err=True))
    draft = draft_of(planned.sequence, workspace, to)  # refuses a wrong name before anything runs
    if show:
        _refuse_changed(planned)
    ended = show or _run(
        planned, draft, executor, executor_option or [], jobs, device, quiet=quiet or as_json
    )
    found = results.tried(planned)
    best = {
        method: one
        for method, trials in found.items()
        if (one := results.best(trials, skip_failed=skip_failed)) is not None
    }
    if show or as_json:
        _print(planned, found, best, as_json=as_json)
    for tuned, chosen in best.items():
        for warning in shown.edges(tuned, found[tuned], chosen):
            options.echo(f"warning: {warning}", err=True)
    if show:
        return
    _write(planned, found, best, to, quiet=as_json)
    if len(best) < len(found):
        missing = ", ".join(method for method in found if method not in best)
        options.echo(f"Not chosen yet, because trials are not done: {missing}.", err=True)
        raise typer.Exit(1 if ended else 0)


def _write(
    planned: Planned,
    found: Mapping[str, Sequence[Tried]],
    best: Mapping[str, Tried],
    to: str | None,
    *,
    quiet: bool,
) -> None:
    """Writes the settings of the best trials into the sequence as its file is now."""
    from moextend.bench.tuning import results
    from moextend.bench.tuning.show import line
    from moextend.bench.tuning.writing import draft_of, with_settings

    entries = {method: results.record(planned, method, found[method], one) for method, one in best.items()}
    if not entries:
        return
    path = with_settings(draft_of(planned.sequence, planned.search.request.workspace, to), entries).write()
    for method, entry in entries.items() if not quiet else ():
        options.echo(line(method, entry))
    options.echo(f"Wrote the settings to {path} (key 'tuned').", err=quiet)


def _refuse_changed(planned: Planned) -> None:
    """Raises RunConflict if data, code or models changed since a trial used them, as a run of the trial would."""
    from moextend.bench.run.inputs import Memo, refuse_other_inputs
    from moextend.bench.run.progress import read_status
    from moextend.bench.run.rundir import RunDir

    memo: Memo = {}
    for path, config in planned.configs.items():
        if read_status(path).state == "done":
            refuse_other_inputs(RunDir(path), memo, config)


def _run(
    planned: Planned,
    draft: Draft,
    executor: str,
    given: Sequence[str],
    jobs: int | None,
    device: str,
    *,
    quiet: bool,
) -> bool:
    """Executes the runs of all trials that are not done; returns whether they ended, or go on elsewhere."""
    from moextend.bench.executors import submitting
    from moextend.bench.run import preflight
    from moextend.bench.run.progress import read_status
    from moextend.bench.run.rundir import RunDir
    from moextend.bench.tuning.trials import FOLDER

    workspace, configs = planned.search.request.workspace, planned.configs
    paths = list(configs)
    how = executing.chosen(
        executor, given, jobs=jobs or runs.default_jobs(list(configs.values()), executor), device=device, wait=None,
        runs=workspace / FOLDER, workspace=workspace,
    )  # fmt: skip
    preflight.check(planned.sequence, planned.tasks, workspace)
    work = any(read_status(path).state != "done" for path in paths)
    preflight.check_here(
        planned.sequence, planned.tasks, workspace, device=device if how.local else None,
        runs=workspace / FOLDER if work else None,
    )  # fmt: skip
    executing.check(how)
    if not quiet:
        source = planned.sequence.path
        copied = "" if draft.path == source else f", a copy of {source}"
        options.echo(f"Trials: {workspace / FOLDER}. Settings: {draft.path} (key 'tuned'){copied}.", err=True)
    busy = submitting.busy(paths, workspace)
    opened, to_do = list[RunDir](), list[RunDir]()
    for folder in dict.fromkeys(planned.folders.values()):
        own = [config for path, config in configs.items() if path.is_relative_to(folder)]
        more, waiting = runs.open_all(own, folder, set(busy), quiet=quiet)
        opened, to_do = [*opened, *more], [*to_do, *waiting]
    to_do.sort(key=lambda run: paths.index(run.folder))
    outcomes = executing.execute(how, opened, to_do, busy, quiet=quiet)
    for outcome in outcomes or ():
        if outcome.error:
            options.echo(f"{outcome.run.name} {outcome.state}: {outcome.error}", err=True)
    return outcomes is not None


def _print(
    planned: Planned, found: Mapping[str, Sequence[Tried]], best: Mapping[str, Tried], *, as_json: bool
) -> None:
    from moextend.bench.report.formats import terminal
    from moextend.bench.tuning.show import records, trials_table

    if as_json:
        typer.echo(json.dumps(records(found, best), indent=2))
        return
    console, width = output()
    terminal.print_tables([trials_table(planned, found, best)], console, width)
