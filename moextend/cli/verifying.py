"""The command that checks whether runs are what they say: verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from moextend.cli import options
from moextend.cli.reports import Names
from moextend.errors import InputError


def verify(
    names: Names = None,
    batches: Annotated[
        int,
        typer.Option(
            "--batches", min=0, metavar="N", help="Batches of every cell to answer again. 0: load no model."
        ),
    ] = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Check every file of runs, score them again, and answer a sample of their items again.

    Exit code 1: something is wrong, and the output says how to repair it.
    Nothing is changed. What a pack left out is not checked.
    """
    from moextend.bench.report import verify as verifying
    from moextend.bench.run.rundir import find_runs, run_name
    from moextend.util.quiet import quiet_process

    quiet_process()
    folder, found = options.runs_folder(runs, workspace), []
    chosen = find_runs(folder, names or [])
    if not chosen:
        raise InputError(
            "no run to verify.",
            where=str(folder),
            hint="Name the folder of the runs (--runs), or the workspace (--workspace).",
        )
    for run in chosen:
        name = run_name(run.folder)
        follow = (
            None if quiet or as_json else lambda cell, name=name: options.echo(f"{name}: {cell}", err=True)
        )
        found.append(verifying.verify(run, batches, follow))
        if not as_json:
            options.echo(verifying.text(found[-1]))
    if as_json:
        typer.echo(json.dumps([one.record() for one in found], indent=2))
    if not all(one.sound for one in found):
        raise typer.Exit(1)
