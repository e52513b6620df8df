"""Standard output and how wide it is, and a progress bar on standard error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ENDLESS = 10_000
SLOWEST = 3600.0
"""Seconds over which the speed is measured: a step may take minutes."""


def output() -> tuple[Console, int | None]:
    """The console of standard output and its columns; None for a file or a pipe, unless COLUMNS is set."""
    console = Console()
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console, console.width
    return Console(width=ENDLESS), None


@contextmanager
def bar(what: str, *, folder: Path | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with the time left, updated by calls with (done, total); nothing before the first one.

    Args: folder: of a call that continues an interrupted one; the first update then says from where.
    """
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, speed_estimate_period=SLOWEST)
    task = progress.add_task(what, total=None)

    def say(where: str) -> None:
        nonlocal folder
        if folder is not None:
            console.print(f"{folder}: an interrupted call continues {where}.", soft_wrap=True, markup=False)
            folder = None

    def update(done: int, total: int) -> None:
        say(f"from step {done - 1} of {total}")
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield update
        say("after its last step")
    finally:
        if progress.live.is_started:
            progress.stop()
