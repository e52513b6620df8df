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
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Address to listen on. A token is required unless it is a loopback address.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 chooses a free one.")] = 8899,
    token: Annotated[
        bool,
        typer.Option("--token", help="Also require a token on 127.0.0.1, for machines with several users."),
    ] = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Serve the report as a read-only web page, which is updated while runs work.

    Ctrl-C stops the server.
    """
    from moextend.bench.report.serve import Address
    from moextend.bench.report.serve import serve as start
    from moextend.bench.run.rundir import find_runs

    folder = options.runs_folder(runs, workspace)
    found = find_runs(folder, names or [])
    address = Address.opened(host, port, token=token)
    options.echo(f"{counted(len(found), 'run')} of {folder}: {address.url}   (Ctrl-C stops it)")
    with suppress(KeyboardInterrupt):
        start(address, folder, names or [], workspace)
    typer.echo("stopped.", err=True)
