"""The command `serve`: the page of the report, live in a browser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from moextend.cli import options
from moextend.cli.reports import Names
from moextend.errors import counted


def serve(
    names: Names = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 chooses a free one.")] = 8899,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Serve the report as a web page on this machine, with the states of runs while they work.

    Ctrl-C stops the server. From another machine, forward the port: ssh -L 8899:127.0.0.1:8899 HOST.
    """
    from moextend.bench.report.page.live import serve as start
    from moextend.bench.run.rundir import find_runs

    folder = options.runs_folder(runs, workspace)
    found = counted(len(find_runs(folder, names or [])), "run")
    with suppress(KeyboardInterrupt):
        start(
            folder,
            names or [],
            workspace,
            port,
            lambda url: options.echo(f"{found} of {folder}: {url}   (Ctrl-C stops it)"),
        )
    typer.echo("stopped.", err=True)
