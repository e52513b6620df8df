"""The command for what runs share: gc."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from moextend.cli import options


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is kept and why.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", min=0, metavar="DAYS", help="Keep what was used in the last DAYS."),
    ] = None,
    max_size: Annotated[
        float | None,
        typer.Option("--max-size", min=0, metavar="GB", help="Remove only until no more than this is left."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Remove results from the workspace's cache that no run needs: projectors, answers, trained stages, features.

    What a running command uses is kept, and so is what runs that are not done may need.
    """
    from moextend.bench.run import gc as collecting
    from moextend.bench.store import Store

    entries = collecting.collect(
        Store((workspace / ".cache").absolute()), options.runs_folder(runs, workspace), dry_run=dry_run,
        older_than=older_than, max_bytes=None if max_size is None else 1e9 * max_size,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps([entry.record() for entry in entries], indent=2))
        return
    for line in [] if quiet else collecting.lines(entries, dry_run=dry_run):
        options.echo(line)
    typer.echo(collecting.summary(entries, dry_run=dry_run))
