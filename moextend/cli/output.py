"""Standard output, and how wide it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

ENDLESS = 10_000


def output() -> tuple[Console, int | None]:
    """The console of standard output and its columns; None for a file or a pipe, unless COLUMNS is set."""
    from rich.console import Console

    console = Console()
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console, console.width
    return Console(width=ENDLESS), None
