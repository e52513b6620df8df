"""Commands about runs that were started: status and cancel; and the records of runs in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from typer import Argument

from moextend.bench.executors import submitting
from moextend.bench.executors.submitting import RunView, views
from moextend.bench.report.collect import collect
from moextend.bench.run.live import row_of, table
from moextend.bench.run.progress import described
from moextend.bench.run.rundir import RunDir, find_runs, run_name
from moextend.cli import options
from moextend.cli.output import output
from moextend.cli.reports import print_styled
from moextend.errors import MoextendError, visible
from moextend.util.foreign import explained

LINES = 20
"""Lines of a log that `status` shows."""
BLOCK = 1 << 16


def status(
    name: Annotated[str | None, Argument(metavar="RUN", help="One run, in detail.")] = None,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Show how far the runs are."""
    folder = workspace / "runs"
    found = find_runs(folder, [name] if name else [])
    if as_json:
        typer.echo(json.dumps(records(found, workspace), indent=2))
        return
    if not found:
        typer.echo(f"No runs in {folder}. Start one: moextend bench run")
    damaged = {run.folder: problem for run in found if (problem := _problem(run))}
    readable = [run for run in found if run.folder not in damaged]
    damaged |= {run.folder: problem for run in readable if (problem := _problem(run, scores=True))}
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
    console, width = output()
    console.print(Text(visible(runs[0][0].folder.parent.name), style="italic"))
    rows = [
        row_of(run, view.status, "damaged" if damaged else view.state, view.note)
        for run, view, damaged in runs
    ]
    console.print(table(rows, width))


def _problem(run: RunDir, *, scores: bool = False) -> MoextendError | None:
    """Problem of a run's config, or of its scores, such as a changed value; None if they can be read."""
    try:
        run.cells() if scores else run.config
    except Exception as error:
        return explained(error, where=str(run.folder))
    return None


def records(runs: Sequence[RunDir], workspace: Path) -> list[dict[str, object]]:
    """State, job and metrics of runs, as JSON values."""
    seen = views([run.folder for run in runs], workspace)
    return [_record(run, seen[run.folder]) for run in runs]


def _record(run: RunDir, view: RunView) -> dict[str, object]:
    names = {"run": run.folder.name, "sequence": run.folder.parent.name, "folder": str(run.folder)}
    problem = _problem(run)
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
    typer.echo(f"\nfolder: {run.folder}")
    if view.job:
        options.echo(f"job: {view.about()}")
    if view.status.error:
        typer.echo(f"error: {view.status.error}")
    for log in [run.log, *([Path(view.job.log)] if view.job and view.job.log else [])]:
        _print_end(log)
    typer.echo("")
    experiments = collect([run], unfinished=True)
    for experiment in experiments:
        typer.echo("".join(f"{left}\n" for left in experiment.left_out), nl=False)
    print_styled([experiment for experiment in experiments if experiment.results], workspace, "matrix")


def _print_end(log: Path) -> None:
    """Prints the path of a log and its last lines; of a line that was overwritten on a terminal, its last form."""
    if log.is_file():
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - BLOCK))
            lines = file.read().decode("utf-8", errors="replace").removesuffix("\n").split("\n")
        typer.echo(f"log: {log}")
        for line in lines[-LINES:]:
            options.echo(f"  {line.rstrip(chr(13)).rpartition(chr(13))[2]}")


def cancel(
    names: Annotated[list[str], Argument(metavar="RUN...", help="Runs, or a sequence: all its runs.")],
    workspace: options.Workspace = Path(),
) -> None:
    """Stop runs cleanly, wherever they are executed; `bench run` continues them."""
    found = find_runs(workspace / "runs", names)
    happened = submitting.cancel([run.folder for run in found], workspace)
    for run, what in happened.items():
        options.echo(f"{run_name(run)}: {what}")
