"""Commands about runs that are going on, on any machine that sees their folders: logs, cancel."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import options

if TYPE_CHECKING:
    from moextend.bench.run.rundir import RunDir

TICK = 0.5
"""Seconds between two looks at a log."""
BLOCK = 1 << 16


def logs(
    name: Annotated[
        str, typer.Argument(metavar="RUN", help="The run: its name, SEQUENCE/RUN or its folder.")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print what is added, until the run ends or Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of lines from the end.")] = 100,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Print the log of a run: what its worker and the script of its scheduler wrote."""
    from moextend.bench.executors.submitting import views
    from moextend.bench.run.rundir import find_run

    run = find_run(options.runs_folder(runs, workspace), name, where="RUN")
    view = views([run.folder], workspace)[run.folder]
    paths = [run.log, *([Path(view.job.log)] if view.job and view.job.log else [])]
    ends = {path: _print_tail(path, lines, several=len(paths) > 1) for path in paths}
    if not any(ends.values()) and not follow:
        typer.echo(f"{run.folder.name} has no log: it is {view.state}.", err=True)
    if follow:
        _follow(run, ends, workspace, view.state)


def _print_tail(path: Path, lines: int, *, several: bool) -> int:
    """Prints the last lines of a log, with its path if there are several; returns its size, 0 for none."""
    try:
        text, size = tail(path, lines)
    except OSError:
        return 0
    if size and several:
        options.echo(f"==> {path} <==")
    if text:
        _print(text)
    return size


def tail(path: Path, lines: int) -> tuple[bytes, int]:
    """The last lines of a file, read from its end, and the size of the file in bytes."""
    with path.open("rb") as file:
        size = start = file.seek(0, 2)
        found = b""
        while start and found.count(b"\n") <= lines:
            step = min(BLOCK, start)
            start -= step
            file.seek(start)
            found = file.read(step) + found
    return b"".join(found.splitlines(keepends=True)[-lines:]), size


def _print(text: bytes) -> None:
    """Prints lines of a log; of a line that was overwritten on a terminal (a progress bar), its last form."""
    for line in text.decode("utf-8", errors="replace").rstrip("\n").split("\n"):
        options.echo(line.rstrip("\r").rpartition("\r")[2])


def _follow(run: RunDir, ends: dict[Path, int], workspace: Path, state: str) -> None:
    """Prints what is added to the logs, until the run, now in `state`, neither runs nor is queued."""
    from moextend.bench.executors.submitting import views

    asked = time.monotonic()
    while state in ("queued", "running"):
        time.sleep(TICK)
        if time.monotonic() - asked >= 10 * TICK:
            state = views([run.folder], workspace)[run.folder].state
            asked = time.monotonic()
        for path, end in ends.items():
            ends[path] = _print_added(path, end)


def _print_added(path: Path, end: int) -> int:
    """Prints the complete lines after byte `end`; returns the byte after them."""
    try:
        with path.open("rb") as file:
            file.seek(end if file.seek(0, 2) >= end else 0)  # a shorter file was begun again
            start = file.tell()
            added = file.read()
    except OSError:
        return end
    lines = added[: added.rfind(b"\n") + 1]
    if lines:
        _print(lines)
    return start + len(lines)


def cancel(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, or a sequence: all its runs.")],
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Stop runs cleanly, wherever they are executed; `bench run` continues them."""
    from moextend.bench.executors import submitting
    from moextend.bench.run.rundir import find_runs, run_name

    found = find_runs(options.runs_folder(runs, workspace), names)
    happened = submitting.cancel([run.folder for run in found], workspace)
    if as_json:
        records = [{"run": run_name(run), "cancel": what} for run, what in happened.items()]
        typer.echo(json.dumps(records, indent=2))
        return
    for run, what in happened.items():
        options.echo(f"{run_name(run)}: {what}")
