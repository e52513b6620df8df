"""`bench tune`: chooses the settings of methods on validation items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from moextend.bench.executors import submitting
from moextend.bench.report.formats import terminal
from moextend.bench.run import preflight
from moextend.bench.run.plan import Request
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from moextend.bench.tuning import results
from moextend.bench.tuning.results import draft_of, with_settings
from moextend.bench.tuning.trials import FOLDER, Planned, Search, plan
from moextend.cli import executing, options, runs
from moextend.cli.command import grouped
from moextend.cli.output import output

if TYPE_CHECKING:
    from moextend.bench.workspace.edit import Draft


@grouped
def tune(
    name: options.Name = None,
    method: options.Methods = None,
    budget: Annotated[int, Option("--budget", metavar="N", help="Trials per method.")] = 8,
    seed: Annotated[
        list[str] | None, Option(metavar="N", help="Seeds of every trial, at least two. Default: 0,1.")
    ] = None,
    tasks: Annotated[int, Option(metavar="N", help="Number of tasks to train on, from the first.")] = 2,
    limit: Annotated[int | None, Option(min=1, help="Maximum number of validation items per task.")] = None,
    steps: options.Steps = None,
    *,
    execution: executing.Execution,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Choose each method's settings with the same budget, on validation items of the first tasks.

    Where the best value is the smallest or largest one tried, further ones are tried. Run the same command again after
    an interruption: only what is missing is done. A finished search is shown again, and a larger budget adds trials.
    """
    request = Request(
        workspace=workspace, sequence=name, methods=tuple(options.methods(method or [])),
        seeds=tuple(options.numbers(seed or ["0,1"], "--seed")), device=options.device(execution.device), limit=limit,
        steps=steps,
    )  # fmt: skip
    planned = plan(
        Search(request, budget, tasks), lambda problem: options.echo(f"left out: {problem}", err=True)
    )
    draft = draft_of(planned.sequence, workspace)
    ended = _execute(planned, draft, execution)
    while ended and (more := results.extended(planned)) is not None:
        planned = more
        ended = _execute(planned, draft, execution)
    found = results.tried(planned)
    best = {method: one for method, trials in found.items() if (one := results.best(trials)) is not None}
    if as_json:
        typer.echo(json.dumps(results.records(found, best), indent=2))
    else:
        console, width = output()
        terminal.print_tables([results.trials_table(planned, found, best)], console, width)
    for tuned, chosen in best.items():
        for warning in results.warnings(tuned, found[tuned], chosen):
            options.echo(f"warning: {warning}", err=True)
    if best:
        entries = {
            method: results.record(planned, method, found[method], one) for method, one in best.items()
        }
        path = with_settings(draft_of(planned.sequence, workspace), entries).write()  # as the file is now
        for tuned, entry in entries.items():
            options.echo(results.line(tuned, entry), err=as_json)
        options.echo(f"Wrote the settings to {path} (key 'tuned').", err=as_json)
    if len(best) < len(found):
        missing = ", ".join(method for method in found if method not in best)
        options.echo(f"Not chosen yet, because trials are not done: {missing}.", err=True)
        raise typer.Exit(1 if ended else 0)


def _execute(planned: Planned, draft: Draft, execution: executing.Execution) -> bool:
    """Executes the runs of all trials that are not done; returns whether they ended, or go on elsewhere."""
    workspace, configs = planned.search.request.workspace, planned.configs
    folder, paths = workspace / FOLDER, list(configs)
    how = execution.chosen(list(configs.values()), folder, workspace)
    preflight.check(planned.sequence, planned.tasks, workspace)
    work = any(read_status(path).state != "done" for path in paths)
    preflight.check_here(
        planned.sequence, planned.tasks, workspace, device=execution.device if how.local else None,
        runs=folder if work else None, seeds=planned.search.request.seeds,
    )  # fmt: skip
    executing.check(how)
    source = planned.sequence.path
    copied = "" if draft.path == source else f", a copy of {source}"
    options.echo(f"Trials: {folder}. Settings: {draft.path} (key 'tuned'){copied}.", err=True)
    busy = submitting.busy(paths, workspace)
    opened, to_do = list[RunDir](), list[RunDir]()
    for shared in dict.fromkeys(planned.folders.values()):
        own = [config for path, config in configs.items() if path.is_relative_to(shared)]
        more, waiting = runs.open_all(own, shared, set(busy))
        opened, to_do = [*opened, *more], [*to_do, *waiting]
    to_do.sort(key=lambda run: paths.index(run.folder))
    outcomes = executing.execute(how, opened, to_do, busy)
    for outcome in outcomes or ():
        if outcome.error:
            options.echo(f"{outcome.run.name} {outcome.state}: {outcome.error}", err=True)
    return outcomes is not None
