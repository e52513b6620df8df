"""Commands about runs: run, status."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import executing, options, varying
from moextend.cli.output import output
from moextend.cli.report_output import How, print_tables
from moextend.errors import InputError, MoextendError, visible
from moextend.util.foreign import explained

if TYPE_CHECKING:
    from moextend.bench.executors.submitting import RunView
    from moextend.bench.report import View
    from moextend.bench.report.collect import Experiment
    from moextend.bench.run.plan import Request
    from moextend.bench.run.rundir import RunConfig, RunDir
    from moextend.bench.task import TaskSpec


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
    rewind: options.Rewind = False,
    subsets: options.Subsets = None,
    allow_code: options.AllowCode = False,
    limit: options.Limit = None,
    steps: options.Steps = None,
    align_steps: options.AlignSteps = None,
    device: options.Device = "auto",
    deterministic: options.Deterministic = False,
    jobs: options.Jobs = None,
    executor: options.Executor = "local",
    executor_option: options.ExecutorOptions = None,
    wait: options.Wait = None,
    backend: options.Backend = None,
    server: options.Server = None,
    serve: options.Serve = None,
    backend_option: options.BackendOptions = None,
    dry_run: options.DryRun = False,
    prepare: options.Prepare = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Train one or several methods on a sequence of tasks; print what they learn and forget.

    Run the same command again after an interruption: only what is missing is done.
    """
    import os

    from moextend.bench.executors import submitting
    from moextend.bench.run import preflight
    from moextend.bench.run.opening import folder_of, named_apart
    from moextend.bench.run.plan import Request, chosen_sequence, modes, resolve
    from moextend.bench.run.progress import read_status
    from moextend.bench.task import ALLOW_CODE

    if allow_code:
        os.environ[ALLOW_CODE] = "1"  # the worker processes inherit it
    request = Request(
        workspace=workspace, sequence=name, methods=tuple(options.methods(method or [])),
        seeds=tuple(options.numbers(seed or ["0"], "--seed")),
        orders=tuple(options.words(order or ["given"], "--order")),
        modes=modes(sequence=sequence, joint=joint, independent=independent),
        device=options.device(device), limit=limit, steps=steps, align_steps=align_steps, match=match,
        oracle=oracle, deterministic=deterministic,
        backend=executing.backend(backend, server, serve, backend_option or []),
    )  # fmt: skip
    configs = resolve(
        request,
        None if quiet or as_json else lambda line: typer.echo(line, err=True),
        lambda problem: options.echo(f"left out: {problem}", err=True),
    )
    folder = runs or workspace / "runs"
    configs = named_apart(
        configs, folder, lambda words: None if quiet or as_json else options.echo(words, err=True)
    )
    asked = varying.wanted(
        configs, rewind=rewind, subsets=subsets, quiet=quiet or as_json,
        others={"--dry-run": dry_run, "--prepare": prepare, "--executor": executor != "local"},
    )  # fmt: skip
    planned = chosen_sequence(request)
    tasks = request.tasks
    preflight.check(planned, tasks, workspace)
    paths = [folder_of(config, folder) for config in configs]
    how = executing.chosen(
        executor, executor_option or [], jobs=jobs or default_jobs(configs, executor), device=device, wait=wait,
        runs=folder, workspace=workspace,
    )  # fmt: skip
    if dry_run:
        script = None if as_json else executing.scripts(how, paths)
        options.echo(_preview(request, configs, folder, as_json=as_json, script=script))
        return
    work = any(read_status(path).state != "done" for path in paths)
    if work and not quiet:
        _warn_of_overlaps([tasks[stage.task] for stage in planned.stages], workspace)
    if not prepare:
        device_here = device if how.local else None
        preflight.check_here(planned, tasks, workspace, device=device_here, runs=folder if work else None)
        executing.check(how)
        executing.check_server(how, planned.scoring if work else None)
    busy = submitting.busy(paths, workspace)
    opened, to_do = open_all(configs, folder, set(busy), quiet=quiet or as_json)
    if prepare:
        _print_folders(to_do, as_json)
        return
    outcomes = executing.execute(how, opened, to_do, busy, quiet=quiet or as_json)
    varying.score(opened, asked, quiet=quiet or as_json)
    if as_json:
        typer.echo(json.dumps(_records(opened, workspace), indent=2))
    elif outcomes is not None:
        _print_reports(opened, workspace, varying.views(rewind=rewind, subsets=subsets))
    executing.end(outcomes or [])


def _warn_of_overlaps(tasks: Sequence[TaskSpec], workspace: Path) -> None:
    """Warns of tasks whose test items are in their training data; what cannot be read is an error of the run."""
    from moextend.bench.audit.duplicates import overlap

    for task in {task.task: task for task in tasks}.values():
        with suppress(MoextendError, OSError):
            if found := overlap(task, workspace):
                options.echo(
                    f"warning: {found}: their score measures memory. moextend bench audit shows more.",
                    err=True,
                )


def status(
    name: Annotated[str | None, typer.Argument(metavar="RUN", help="One run, in detail.")] = None,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Show how far the runs are."""
    from moextend.bench.executors.submitting import views
    from moextend.bench.run.rundir import find_runs

    folder = options.runs_folder(runs, workspace)
    found = find_runs(folder, [name] if name else [])
    if as_json:
        typer.echo(json.dumps(_records(found, workspace), indent=2))
        return
    if not found:
        typer.echo(f"No runs in {folder}. Start one: moextend bench run")
    damaged = {run.folder: problem for run in found if (problem := _config_problem(run))}
    readable = [run for run in found if run.folder not in damaged]
    damaged |= {run.folder: problem for run in readable if (problem := _scores_problem(run))}
    seen = views([run.folder for run in readable], workspace)
    for parent in dict.fromkeys(run.folder.parent for run in readable):
        own = [run for run in readable if run.folder.parent == parent]
        _print_states([(run, seen[run.folder], run.folder in damaged) for run in own])
    for path, problem in damaged.items():
        typer.echo(f"{path.name} is damaged: {problem}")
    if name and len(readable) == 1:
        _print_details(readable[0], seen[readable[0].folder], workspace)


def _print_states(runs: Sequence[tuple[RunDir, RunView, bool]]) -> None:
    """Prints the table of the runs of one sequence; each with its view, and whether it is damaged."""
    from rich.text import Text

    from moextend.bench.run.live import row_of, table

    console, width = output()
    console.print(Text(visible(runs[0][0].folder.parent.name), style="italic"))
    rows = [
        row_of(run, view.status, "damaged" if damaged else view.state, view.note)
        for run, view, damaged in runs
    ]
    console.print(table(rows, width))


def _config_problem(run: RunDir) -> MoextendError | None:
    """Problem of a run's config; None if it can be read."""
    return _problem(run, lambda: run.config)


def _scores_problem(run: RunDir) -> MoextendError | None:
    """Problem of a run's scores, such as a changed value; None if they can be read."""
    return _problem(run, run.cells)


def _problem(run: RunDir, read: Callable[[], object]) -> MoextendError | None:
    try:
        read()
    except Exception as error:
        return explained(error, where=str(run.folder))
    return None


def open_all(
    configs: list[RunConfig], runs: Path, busy: Collection[Path], *, quiet: bool
) -> tuple[list[RunDir], list[RunDir]]:
    """Folders of all runs, and those with work to do that no job has; if one is refused, nothing changes."""
    from moextend.bench.run.complete import lacks, names_of
    from moextend.bench.run.inputs import Memo, refuse_changed_code, refuse_other_inputs
    from moextend.bench.run.opening import folder_of, open_runs
    from moextend.bench.run.progress import read_status
    from moextend.bench.run.rundir import run_name

    incomplete: dict[Path, str] = {}
    memo: Memo = {}

    wanted = {folder_of(config, runs): config for config in configs}

    def has_work(run: RunDir) -> bool:
        refuse_changed_code(run, wanted.get(run.folder))
        if run.folder in busy:
            return False
        if read_status(run.folder).state != "done":
            return True
        refuse_other_inputs(run, memo, wanted.get(run.folder))
        lacking = lacks(run)
        if lacking:
            incomplete[run.folder] = names_of(lacking)
        return bool(lacking)

    def report_replaced(run: RunDir) -> None:
        if not quiet:
            typer.echo(f"{run_name(run.folder)}: the config changed before anything was trained; the run is replaced.",
                       err=True)  # fmt: skip

    opened = open_runs(configs, runs, must_be_free=has_work, on_replace=report_replaced)
    to_do = [
        run
        for run in opened
        if run.folder not in busy and (run.folder in incomplete or read_status(run.folder).state != "done")
    ]
    for folder, what in () if quiet else incomplete.items():
        typer.echo(f"{folder.name} was done, but lacks {what}. It is computed again.", err=True)
    return opened, to_do


def _print_folders(runs: Sequence[RunDir], as_json: bool) -> None:
    ready = [str(run.folder.resolve()) for run in runs]
    typer.echo(json.dumps(ready, indent=2) if as_json else "".join(f"{path}\n" for path in ready), nl=as_json)


def default_jobs(configs: list[RunConfig], executor: str) -> int | None:
    """Default number of runs at a time: several only for models that are certainly small enough.

    None: the executor's own default.
    """
    from moextend.bench.run.launch import cores

    if executor != "local":
        return None
    small = all(config.sequence["base"]["model"] == "tiny" for config in configs)
    return min(len(configs), cores(), 4) if small else 1


def _records(runs: Sequence[RunDir], workspace: Path) -> list[dict[str, object]]:
    from moextend.bench.executors.submitting import views

    seen = views([run.folder for run in runs], workspace)
    return [_record(run, seen[run.folder]) for run in runs]


def _record(run: RunDir, view: RunView) -> dict[str, object]:
    from moextend.bench.report.collect import collect
    from moextend.bench.run.progress import described

    names = {"run": run.folder.name, "sequence": run.folder.parent.name, "folder": str(run.folder)}
    problem = _config_problem(run)
    if problem is not None:
        return {**names, "state": "damaged", "error": described(problem).model_dump()}
    config = run.config
    what = {key: getattr(config, key) for key in ("method", "seed", "order", "mode")}
    status = view.status.model_dump()
    (experiment,) = collect([run], unfinished=True)
    record: dict[str, object] = {
        **names, **what,
        **{key: status[key] for key in ("state", "host", "pid", "heartbeat", "stage", "stages")},
        **{key: status[key] for key in ("done", "units", "left", "error")},
        "job": view.record(),
        "metrics": experiment.results[0].summary if experiment.results else None,
    }  # fmt: skip
    if experiment.left_out:  # its scores or facts cannot be read
        record |= {"state": "damaged", "error": {"what": experiment.left_out[0], "where": None, "hint": None}}
    return record


def _print_details(run: RunDir, view: RunView, workspace: Path) -> None:
    from moextend.bench.report.collect import collect

    typer.echo(f"\nfolder: {run.folder}")
    if view.job:
        options.echo(f"job: {view.about()}")
    if view.status.error:
        typer.echo(f"error: {view.status.error}")
    if run.log.exists():
        typer.echo(f"log: {run.log}")
    typer.echo("")
    experiments = collect([run], unfinished=True)
    for left in (name for experiment in experiments for name in experiment.left_out):
        typer.echo(left)
    _print_styled([experiment for experiment in experiments if experiment.results], workspace, "matrix")


def _print_reports(opened: list[RunDir], workspace: Path, more: Sequence[View]) -> None:
    """Prints the forgetting table, and further views."""
    from moextend.bench.report.collect import collect

    experiments = [experiment for experiment in collect(opened) if experiment.results]
    _print_styled(experiments, workspace)
    for view in more:
        typer.echo("")
        _print_styled(experiments, workspace, view)


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


def _preview(
    request: Request, configs: list[RunConfig], runs: Path, *, as_json: bool, script: str | None
) -> str:
    """What a command would do: the text of an executor with the hours that it takes, else all that is known."""
    from moextend.bench.run.preview import describe, in_all, preview

    found = preview(request, configs, runs=runs, small=script is not None)
    if script is not None:
        return f"{script}# {in_all(found['estimate'])}"
    return json.dumps(found, indent=2) if as_json else describe(found)
