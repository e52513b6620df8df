"""Shows how far runs are: a table, drawn again and again on a terminal, or plain lines without one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Self, get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from moextend.bench.run.progress import DOING, Phase, read_status
from moextend.bench.run.records import Status
from moextend.bench.run.rundir import RunDir
from moextend.errors import duration, visible

COLOUR: dict[str, str] = {
    "waiting": "dim", "queued": "dim", "running": "cyan", "done": "green", "failed": "red", "interrupted": "yellow",
    "cancelled": "yellow", "lost": "yellow", "damaged": "red",
}  # fmt: skip
"""State -> colour; besides those of a status those of a job (queued, cancelled, lost), and of unreadable scores."""
COLUMNS = ("method", "seed", "state", "where", "stage", "now", "bar", "left")
NARROW = {"bar": 120, "where": 100, "now": 70, "stage": 60}
"""Column -> characters of a terminal below which there is no room for it."""
BAR = 12
"""Characters of a bar."""
ETA_EVERY = 60.0
"""Minimum seconds between two lines with the time left; a sixtieth of that time if it is longer."""


@dataclass(frozen=True)
class Row:
    """One run of the table."""

    method: str
    seed: str
    state: str
    stage: str
    now: str
    left: str
    fraction: float
    where: str = ""
    """Host and process; without them in all rows the column is left out."""


def row_of(
    run: RunDir, status: Status, state: str | None = None, note: str = "", *, where: bool = True
) -> Row:
    """Row of a run.

    Args:
        state: that of its job where it says more.
        note: a note on the job.
        where: whether to name the host and the process of a run that is running or lost.
    """
    config = run.config
    name = [
        config.method,
        *(part for part in (config.order, config.mode) if part not in ("given", "sequence")),
    ]
    error = (status.error.what or "") if status.error and status.state == "failed" else note
    if status.state == "lost" and status.heartbeat is not None:
        error = f"no heartbeat for {duration(max(0.0, time.time() - status.heartbeat))}"
    placed = where and status.state in ("running", "lost") and status.host
    return Row(
        method=visible(" ".join(name)),
        seed=str(config.seed),
        state=state or status.state,
        stage=f"{status.stage}/{status.stages}" if status.stages else "",
        now=" ".join(visible(error or _doing(status)).split()),
        left=duration(status.left) if status.state == "running" else "",
        fraction=status.fraction,
        where=visible(f"{status.host} ({status.pid})") if placed else "",
    )


def _doing(status: Status) -> str:
    """What a run does: "learning tiny-counting 120/400", "waiting for another run: tiny-counting"."""
    if status.state != "running" or status.phase is None:
        return ""
    in_unit = status.phase in get_args(Phase) and status.steps > 1
    steps = f"{status.step}/{status.steps}" if in_unit else None
    return " ".join(filter(None, (DOING.get(status.phase, status.phase), status.task, steps)))


def table(rows: Sequence[Row], width: int | None) -> Table:
    """The table of some runs, with the columns that fit `width`; None (a file): all columns without the bar."""
    columns = [
        name
        for name in COLUMNS
        if (name != "where" or any(row.where for row in rows))
        and (name != "bar" if width is None else width >= NARROW.get(name, 0))
    ]
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=False)
    for name in columns:
        # rich shrinks only what may be folded or cut.
        found.add_column(
            "" if name == "bar" else name, justify="right" if name in ("seed", "stage", "left") else "left",
            no_wrap=name not in ("method", "now"), overflow="fold",
            min_width={"method": 20, "now": 10, "bar": BAR}.get(name) or max(len(getattr(row, name)) for row in rows),
        )  # fmt: skip
    for row in rows:
        cells: dict[str, Text | ProgressBar] = {
            "state": Text(row.state, style=COLOUR[row.state]),
            "bar": ProgressBar(total=1.0, completed=row.fraction, width=BAR),
        }
        found.add_row(*(cells.get(name) or Text(getattr(row, name)) for name in columns))
    return found


def seconds_left(statuses: Iterable[Status], jobs: int) -> float | None:
    """Seconds until all runs are done, `jobs` at a time; waiting runs are assumed to take as long as the others."""
    statuses = list(statuses)
    lefts = [s.left for s in statuses if s.state == "running"]
    costs = [s.elapsed + (s.left or 0) for s in statuses if s.elapsed and s.left is not None]
    waiting = sum(s.state == "waiting" for s in statuses)
    if None in lefts or (waiting and not costs):
        return None
    known = [left for left in lefts if left is not None]
    return max([0.0, *known, (sum(known) + (waiting * fmean(costs) if waiting else 0)) / jobs])


def summary(statuses: Sequence[Status], jobs: int, elapsed: float) -> str:
    """All runs in one line: "2 running, 1 done; 3m 05s so far, about 2h 10m left"."""
    states = [status.state for status in statuses]
    counts = ", ".join(f"{states.count(state)} {state}" for state in COLOUR if state in states)
    left = seconds_left(statuses, jobs)
    about = f"about {duration(left)} left" if left is not None else "time left not known yet"
    return f"{counts}; {duration(elapsed)} so far, {about}"


def view(runs: Sequence[Path], jobs: int, console: Console) -> LiveView | PlainView:
    """The view that fits the console."""
    return LiveView(runs, jobs, console) if console.is_terminal else PlainView(runs, jobs, console)


class LiveView:
    """A table on the terminal that is redrawn during the runs."""

    def __init__(self, runs: Sequence[Path], jobs: int, console: Console) -> None:
        self.runs, self.jobs, self.console = [RunDir(run) for run in runs], jobs, console
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
        found = [(run, read_status(run.folder)) for run in self.runs]
        words = summary([status for _, status in found], self.jobs, time.monotonic() - self.began)
        rows = [row_of(run, status, where=False) for run, status in found]
        rows.sort(
            key=lambda row: row.state != "running"
        )  # the first ones are seen where there is little room
        return Group(Text(words, style="dim"), table(rows, self.console.width))


class PlainView:
    """One line whenever a run begins, has learned and scored a stage, or ends, and every minute: for logs and pipes."""

    def __init__(self, runs: Sequence[Path], jobs: int, console: Console) -> None:
        self.runs, self.jobs, self.console = list(runs), jobs, console
        self.began = time.monotonic()
        self.reported_left: float | None = None
        self.seen = {run: read_status(run) for run in runs}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: Any) -> None:
        return

    def update(self) -> None:
        """Prints the events since the last call."""
        statuses = []
        for run in self.runs:
            before, now = self.seen[run], read_status(run)
            statuses.append(now)
            self.seen[run] = now
            for line in _news(before, now):
                self._print(f"{run.name}: {line}")
        self._print_left(statuses)

    def _print_left(self, statuses: Sequence[Status]) -> None:
        """Prints the time left when it is first known, and then at most once a minute."""
        left, now, last = seconds_left(statuses, self.jobs), time.monotonic(), self.reported_left
        if left and (last is None or now - last >= max(ETA_EVERY, left / 60)):
            self.reported_left = now
            self._print(summary(statuses, self.jobs, now - self.began))

    def _print(self, line: str) -> None:
        # Not by rich, which ends the process where nobody reads the pipe any more.
        if not self.console.quiet:
            print(line, file=self.console.file, flush=True)


def _news(before: Status, now: Status) -> list[str]:
    """What happened to a run between two looks at it."""
    # A short run may have ended since the last look; one whose process never came has no number of it.
    began = before.state != "running" and now.state not in ("waiting", before.state) and now.pid is not None
    lines = ["started"] if began else []
    if now.state == "running" and now.stage > before.stage:
        lines.append(f"stage {now.stage}/{now.stages} begins")
    if now.state == before.state:
        return lines
    if now.state == "done":
        lines.append(f"done in {duration(now.elapsed)}")
    elif now.state == "failed" and now.error:
        lines.append(f"failed: {visible(now.error.what or '')}")
    elif now.state in ("failed", "interrupted"):
        lines.append(now.state)
    return lines
