"""Shows runs while they work: a table that keeps itself up to date, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from moextend.bench.progress import State, Status, read_status
from moextend.bench.rundir import RunDir
from moextend.errors import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

COLOUR: dict[State, str] = {
    "waiting": "dim", "running": "cyan", "done": "green", "failed": "red", "interrupted": "yellow",
}  # fmt: skip
DOING = {"align": "aligning", "probe": "probing", "train": "learning", "score": "scoring"}
ROWS = 24
"""Rows of the live table at the most; the runs that work come first."""


def duration(seconds: float | None) -> str:
    """A time in words: 42s, 3m 05s, 2h 10m; "-" for an unknown one."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def label(run: RunDir) -> str:
    """A run's name in a table: its method, and its order or mode if it is not the usual one."""
    config = run.config
    more = [part for part in (config.order, config.mode) if part not in ("given", "sequence")]
    return " ".join([config.method, *more])


def doing(status: Status) -> str:
    """What a run is at: "learning tiny-counting 120/400"."""
    if status.state != "running" or status.phase is None:
        return ""
    steps = f" {status.step}/{status.steps}" if status.steps > 1 else ""
    return f"{DOING.get(status.phase, status.phase)} {status.task}{steps}"


def seconds_left(statuses: Iterable[Status], jobs: int) -> float | None:
    """Seconds until all are done, with `jobs` at a time; waiting runs count as much as the others."""
    statuses = list(statuses)
    lefts = [s.left for s in statuses if s.state == "running"]
    costs = [s.elapsed + (s.left or 0) for s in statuses if s.elapsed and s.left is not None]
    waiting = sum(s.state == "waiting" for s in statuses)
    if None in lefts or (waiting and not costs):
        return None
    known = [left for left in lefts if left is not None]
    return max([0.0, *known, (sum(known) + (waiting * fmean(costs) if waiting else 0)) / jobs])


def status_table(runs: Sequence[tuple[RunDir, Status]], *, title: str | None = None) -> Table:
    """A table with one row a run."""
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, expand=False)
    for name in ("method", "seed", "state", "stage"):
        table.add_column(name, justify="right" if name in ("seed", "stage") else "left", no_wrap=True)
    table.add_column("now", min_width=20, max_width=34, no_wrap=True, overflow="ellipsis")
    table.add_column("", width=12)
    table.add_column("left", justify="right", no_wrap=True)
    for run, status in runs:
        stage = f"{status.stage}/{status.stages}" if status.stages else ""
        error = escape(visible((status.error or {}).get("what") or "")) if status.state == "failed" else ""
        table.add_row(
            escape(visible(label(run))), str(run.config.seed),
            f"[{COLOUR[status.state]}]{status.state}", stage, error or escape(visible(doing(status))),
            ProgressBar(total=1.0, completed=status.fraction, width=12),
            duration(status.left) if status.state == "running" else "",
        )  # fmt: skip
    return table


class LiveView:
    """A table on the terminal, redrawn while the runs work."""

    def __init__(self, runs: Sequence[Path], jobs: int, console: Console) -> None:
        from rich.live import Live

        self.runs, self.jobs = [RunDir(run) for run in runs], jobs
        self.began = time.monotonic()
        self.live = Live(self._table(), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self.live.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self.live.__exit__(*reason)

    def update(self) -> None:
        """Reads all status files and redraws."""
        self.live.update(self._table(), refresh=True)

    def _table(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        found = [(run, read_status(run.folder)) for run in self.runs]
        shown = found if len(found) <= ROWS else sorted(found, key=lambda row: row[1].state != "running")
        states = [status.state for _, status in found]
        counts = ", ".join(f"{states.count(state)} {state}" for state in COLOUR if state in states)
        hidden = f" ({len(found) - ROWS} not shown)" if len(found) > ROWS else ""
        left = seconds_left((status for _, status in found), self.jobs)
        about = f"about {duration(left)} left" if left is not None else "time left not known yet"
        elapsed = duration(time.monotonic() - self.began)
        last = Text(f"{counts}{hidden}; {elapsed} so far, {about}", style="dim")
        return Group(status_table(shown[:ROWS]), last)


def view(runs: Sequence[Path], jobs: int, console: Console) -> LiveView | PlainView:
    """What fits the console."""
    return LiveView(runs, jobs, console) if console.is_terminal else PlainView(runs, jobs, console)


class PlainView:
    """One line whenever a stage of a run has been scored, and when a run ends: for logs and pipes."""

    def __init__(self, runs: Sequence[Path], jobs: int, console: Console) -> None:
        self.runs, self.console = [RunDir(run) for run in runs], console
        self.said: dict[Path, tuple[Any, ...]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: Any) -> None:
        return

    def update(self) -> None:
        """Prints what has happened since the last call."""
        for run in self.runs:
            status = read_status(run.folder)
            now = (status.state, status.stage, status.phase == "score")
            before = self.said.get(run.folder)
            if now == before:
                continue
            self.said[run.folder] = now
            line = _line(run, status, before)
            if line:
                self.console.print(
                    f"{run.folder.name}: {line}", markup=False, highlight=False, soft_wrap=True
                )


def _line(run: RunDir, status: Status, before: tuple[Any, ...] | None) -> str | None:
    if status.state == "running":
        if before and before[2] and status.stage > before[1]:
            return f"stage {before[1]}/{status.stages} scored{_scores(run, before[1])}"
        return "started" if before is None or before[0] != "running" else None
    if status.state == "done" and before:
        return f"done in {duration(status.elapsed)}{_scores(run, status.stages)}"
    if status.state == "failed" and status.error:
        return f"failed: {visible(status.error['what'] or '')}"
    return status.state if before else None


def _scores(run: RunDir, stage: int) -> str:
    cells, config = run.cells(), run.config
    means = {
        name: [cells[stage, task].value for task in tasks if (stage, task) in cells]
        for name, tasks in (
            ("tasks", config.stages),
            ("text", config.retention),
            ("transfer", config.transfer),
        )
    }
    said = ", ".join(f"{name} {fmean(values):.1f}" for name, values in means.items() if values)
    return f": mean of {said}" if said else ""
