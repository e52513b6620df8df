"""Commands about runs: run, status."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import options
from moextend.cli.output import output
from moextend.cli.report_output import How, print_tables
from moextend.errors import InputError, counted, visible
from moextend.util.foreign import explained

if TYPE_CHECKING:
    from moextend.bench.report import View
    from moextend.bench.report.collect import Experiment
    from moextend.bench.run.launch import Outcome
    from moextend.bench.run.plan import Request
    from moextend.bench.run.records import Status
    from moextend.bench.run.rundir import RunConfig, RunDir
    from moextend.errors import MoextendError

GO_ON = "interrupted; the same command continues where it stopped."


def run(
    name: options.Name = None,
    sequence: options.InSequence = True,
    joint: options.Joint = False,
    independent: options.Independent = False,
    method: options.Methods = None,
    seed: options.Seeds = None,
    order: options.Orders = None,
    match: options.Match = "steps",
    oracle: options.Oracle = False,
    allow_code: options.AllowCode = False,
    limit: options.Limit = None,
    steps: options.Steps = None,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
    dry_run: options.DryRun = False,
    throughput: options.Throughput = None,
    prepare: options.Prepare = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Learn tasks one after the other with one or several methods; print what was learned and forgotten.

    Run the same command again after an interruption: only what is missing is done.
    """
    import os

    from moextend.bench.run import preflight
    from moextend.bench.run.opening import folder_of
    from moextend.bench.run.plan import Request, all_tasks, chosen_sequence, modes, resolve
    from moextend.bench.run.progress import read_status
    from moextend.bench.task import ALLOW_CODE

    if allow_code:
        os.environ[ALLOW_CODE] = "1"  # the worker processes inherit it
    request = Request(
        workspace=workspace, sequence=name, methods=tuple(options.methods(method or [])),
        seeds=tuple(options.numbers(seed or ["0"], "--seed")),
        orders=tuple(options.words(order or ["given"], "--order")),
        modes=modes(sequence=sequence, joint=joint, independent=independent),
        device=options.device(device), limit=limit, steps=steps, match=match, oracle=oracle,
    )  # fmt: skip
    configs = resolve(
        request,
        None if quiet or as_json else lambda line: typer.echo(line, err=True),
        lambda problem: options.echo(f"left out: {problem}", err=True),
    )
    planned = chosen_sequence(request)
    tasks = all_tasks(planned, workspace)
    preflight.check(planned, tasks, workspace)
    if dry_run:
        _preview(request, configs, throughput, as_json)
        return
    folder = runs or workspace / "runs"
    work = any(read_status(folder_of(config, folder)).state != "done" for config in configs)
    if not prepare:  # the runs may be meant for another machine
        preflight.check_here(planned, tasks, workspace, device=device, runs=folder if work else None)
    opened, to_do = _open(configs, folder, quiet=quiet or as_json)
    if prepare:
        paths = [str(run.folder.resolve()) for run in to_do]
        typer.echo(
            json.dumps(paths, indent=2) if as_json else "".join(f"{path}\n" for path in paths), nl=as_json
        )
        return
    outcomes = _launch(opened, to_do, jobs or _jobs(configs), quiet=quiet or as_json)
    if as_json:
        typer.echo(json.dumps([_record(run) for run in opened], indent=2))
    else:
        _print_report(opened, workspace)
    _end(outcomes)


def status(
    name: Annotated[str | None, typer.Argument(metavar="RUN", help="One run, in detail.")] = None,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Show how far the runs are."""
    from moextend.bench.run.progress import read_status
    from moextend.bench.run.rundir import find_runs

    folder = runs or workspace / "runs"
    found = find_runs(folder, [name] if name else [])
    if as_json:
        typer.echo(json.dumps([_record(run) for run in found], indent=2))
        return
    if not found:
        typer.echo(f"No runs in {folder}. Start one: moextend bench run")
    damaged = {run.folder: problem for run in found if (problem := _config_problem(run))}
    readable = [run for run in found if run.folder not in damaged]
    for parent in dict.fromkeys(run.folder.parent for run in readable):
        _print_states([(run, read_status(run.folder)) for run in readable if run.folder.parent == parent])
    for path, problem in damaged.items():
        typer.echo(f"{path.name} is damaged: {problem}")
    if name and len(readable) == 1:
        _print_details(readable[0], workspace)


def _print_states(runs: Sequence[tuple[RunDir, Status]]) -> None:
    """Prints the table of the runs of one sequence."""
    from rich.text import Text

    from moextend.bench.run.statuses import layout, row_of

    console, width = output()
    console.print(Text(visible(runs[0][0].folder.parent.name), style="italic"))
    console.print(layout([row_of(run, status) for run, status in runs], width).table())


def _config_problem(run: RunDir) -> MoextendError | None:
    """Problem of a run's config; None if it can be read."""
    try:
        _ = run.config
    except Exception as error:
        return explained(error, where=str(run.folder))
    return None


def _open(configs: list[RunConfig], runs: Path, *, quiet: bool) -> tuple[list[RunDir], list[RunDir]]:
    """Folders of all runs, and those with work to do; if one is refused, nothing changes."""
    from moextend.bench.run.complete import lacks, names_of
    from moextend.bench.run.opening import open_runs
    from moextend.bench.run.progress import read_status
    from moextend.bench.run.provenance import refuse_changed_plugins
    from moextend.bench.run.rundir import run_name

    incomplete: dict[Path, str] = {}

    def has_work(run: RunDir) -> bool:
        refuse_changed_plugins(run)
        if read_status(run.folder).state != "done":
            return True
        lacking = lacks(run)
        if lacking:
            incomplete[run.folder] = names_of(lacking)
        return bool(lacking)

    def report_replaced(run: RunDir) -> None:
        if not quiet:
            typer.echo(f"{run_name(run.folder)}: the config changed before anything was trained; the run is replaced.",
                       err=True)  # fmt: skip

    opened = open_runs(configs, runs, must_be_free=has_work, on_replace=report_replaced)
    to_do = [r for r in opened if r.folder in incomplete or read_status(r.folder).state != "done"]
    for folder, what in () if quiet else incomplete.items():
        typer.echo(f"{folder.name} was done, but lacks {what}. That is made again.", err=True)
    return opened, to_do


def _jobs(configs: list[RunConfig]) -> int:
    """Default number of runs at a time: several only for models that are certainly small enough."""
    from moextend.bench.run.launch import cores

    small = all(config.sequence["base"]["model"] == "tiny" for config in configs)
    return min(len(configs), cores(), 4) if small else 1


def _launch(opened: list[RunDir], waiting: list[RunDir], jobs: int, *, quiet: bool) -> list[Outcome]:
    """Executes the waiting runs; returns how they ended."""
    from rich.console import Console

    from moextend.bench.run.launch import launch
    from moextend.bench.run.live import view

    to_do = [run.folder for run in waiting]
    done = len(opened) - len(to_do)
    # On stderr, so that `moextend bench run > report.txt` still shows how far it is.
    console = Console(stderr=True, quiet=quiet)
    if done:
        were = "was" if done == 1 else "were"
        console.print(f"{done} of {counted(len(opened), 'run')} {were} done before.", highlight=False)
    if not to_do:
        return []
    try:
        with view(to_do, jobs, console) as shown:
            return list(launch(to_do, jobs=jobs, view=shown).values())
    except KeyboardInterrupt:
        typer.echo(GO_ON, err=True)
        raise typer.Exit(130) from None


def _end(outcomes: list[Outcome]) -> None:
    """Prints the failed runs, and exits with code 1 if there is one."""
    from moextend.bench.run.rundir import RunDir

    failed = [outcome for outcome in outcomes if outcome.state != "done"]
    for outcome in failed:
        why = f": {outcome.error}" if outcome.error else ""
        options.echo(f"{outcome.run.name} {outcome.state}{why}", err=True)
        if (log := RunDir(outcome.run).log).exists():
            typer.echo(f"  log: {log}", err=True)
    if failed:
        typer.echo("What was computed is kept: the same command does only what is missing.", err=True)
        raise typer.Exit(1)


def _record(run: RunDir) -> dict[str, object]:
    from moextend.bench.report.collect import collect
    from moextend.bench.report.forgetting import summary
    from moextend.bench.run.progress import described, read_status

    names = {"run": run.folder.name, "sequence": run.folder.parent.name, "folder": str(run.folder)}
    problem = _config_problem(run)
    if problem is not None:
        return {**names, "state": "damaged", "error": described(problem).model_dump()}
    config = run.config
    what = {key: getattr(config, key) for key in ("method", "seed", "order", "mode")}
    status = read_status(run.folder).model_dump()
    (experiment,) = collect([run], unfinished=True)
    record: dict[str, object] = {
        **names, **what,
        **{key: status[key] for key in ("state", "stage", "stages", "done", "units", "left", "error")},
        "metrics": summary(experiment.results[0]) if experiment.results else None,
    }  # fmt: skip
    if experiment.left_out:  # its scores or facts cannot be read
        record |= {"state": "damaged", "error": {"what": experiment.left_out[0], "where": None, "hint": None}}
    return record


def _print_details(run: RunDir, workspace: Path) -> None:
    from moextend.bench.report.collect import collect
    from moextend.bench.run.progress import read_status
    from moextend.errors import MoextendError

    status = read_status(run.folder)
    typer.echo(f"\nfolder: {run.folder}")
    if status.error:
        known = status.error
        error = MoextendError(known.what or "", where=known.where, hint=known.hint)
        typer.echo(f"error: {error}")
    if run.log.exists():
        typer.echo(f"log: {run.log}")
    typer.echo("")
    experiments = collect([run], unfinished=True)
    for left in (name for experiment in experiments for name in experiment.left_out):
        typer.echo(left)
    _print_styled([experiment for experiment in experiments if experiment.results], workspace, "matrix")


def _print_report(opened: list[RunDir], workspace: Path) -> None:
    from moextend.bench.report.collect import collect

    _print_styled([experiment for experiment in collect(opened) if experiment.results], workspace)


def _print_styled(experiments: list[Experiment], workspace: Path, view: View = "forgetting") -> None:
    """Prints tables of all these runs as the workspace's report.yaml has them; as usual if that is wrong."""
    from moextend.bench.report.style import Styling, find_style

    if not experiments:
        return
    try:
        styling = find_style(None, workspace)
        every = styling.style.model_copy(update={"others": True})
        print_tables(experiments, How(replace(styling, style=every)), view=view)
    except InputError as error:
        options.echo(f"not applied to these tables: {error}", err=True)
        print_tables(experiments, How(Styling()), view=view)


def _preview(request: Request, configs: list[RunConfig], throughput: float | None, as_json: bool) -> None:
    from moextend.bench.run.preview import describe, preview

    found = preview(request, configs, throughput=throughput)
    options.echo(json.dumps(found, indent=2) if as_json else describe(found))
