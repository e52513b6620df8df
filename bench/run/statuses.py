"""Table of runs and their states that fits the terminal: state, method and time left are never truncated."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, get_args

from moextend.bench.run.progress import DOING, Phase
from moextend.bench.run.records import Status
from moextend.bench.run.rundir import RunDir
from moextend.errors import duration, visible
from moextend.util.fold import folded

if TYPE_CHECKING:
    from rich.table import Table

COLOUR: dict[str, str] = {
    "waiting": "dim", "queued": "dim", "running": "cyan", "done": "green", "failed": "red", "interrupted": "yellow",
    "cancelled": "yellow", "lost": "yellow", "damaged": "red",
}  # fmt: skip
"""State -> colour; besides those of a status those of a job (queued, cancelled, lost), and of unreadable scores."""
COLUMNS = ("method", "seed", "state", "where", "stage", "now", "bar", "left")
GOING = ("bar", "where", "now", "stage", "seed")
"""Columns to leave out in a narrow terminal, in this order. Seeds are then part of the name."""
NAME = 34
"""Characters after which a method's name is wrapped."""
LEAST = 20
"""Minimum width of a wrapped name; below it, columns after "now" are left out too."""
NOW = (16, 34)
"""Minimum and maximum width of the current step of a run; longer texts are truncated."""
BAR = 12
LEFT = len("59m 59s")
GAP = 2


def label(run: RunDir) -> str:
    """Name of a run in a table: its method, and its order or mode if it is not the default."""
    config = run.config
    more = [part for part in (config.order, config.mode) if part not in ("given", "sequence")]
    return " ".join([config.method, *more])


def doing(status: Status) -> str:
    """What a run does: "learning tiny-counting 120/400", "waiting for another run: tiny-counting"."""
    if status.state != "running" or status.phase is None:
        return ""
    in_unit = status.phase in get_args(Phase) and status.steps > 1
    steps = f"{status.step}/{status.steps}" if in_unit else None
    return " ".join(filter(None, (DOING.get(status.phase, status.phase), status.task, steps)))


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


def summary(statuses: Sequence[Status], jobs: int, elapsed: float, hidden: int = 0) -> str:
    """All runs in one line: "2 running, 1 done; 3m 05s so far, about 2h 10m left"."""
    states = [status.state for status in statuses]
    counts = ", ".join(f"{states.count(state)} {state}" for state in COLOUR if state in states)
    left = seconds_left(statuses, jobs)
    about = f"about {duration(left)} left" if left is not None else "time left not known yet"
    return f"{counts}{f' ({hidden} not shown)' if hidden else ''}; {duration(elapsed)} so far, {about}"


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
        run: the run.
        status: its status.
        state: that of its job where it says more.
        note: a note on the job.
        where: whether to name the host and the process of a run that is running or lost.
    """
    error = (status.error.what or "") if status.error and status.state == "failed" else note
    if status.state == "lost" and status.heartbeat is not None:
        error = f"no heartbeat for {duration(max(0.0, time.time() - status.heartbeat))}"
    placed = where and status.state in ("running", "lost") and status.host
    return Row(
        method=visible(label(run)),
        seed=str(run.config.seed),
        state=state or status.state,
        stage=f"{status.stage}/{status.stages}" if status.stages else "",
        now=" ".join(visible(error or doing(status)).split()),
        left=duration(status.left) if status.state == "running" else "",
        fraction=status.fraction,
        where=visible(f"{status.host} ({status.pid})") if placed else "",
    )


@dataclass(frozen=True)
class Layout:
    """Columns of a table of runs that fit its width."""

    rows: list[Row]
    columns: tuple[str, ...]
    name: int
    """Width of the column with the method's name."""
    now: int

    def height(self, row: Row) -> int:
        """Height of a row in lines."""
        return len(folded(row.method, self.name))

    def table(self, rows: Sequence[Row] | None = None) -> Table:
        """The table of all rows, or of some of them."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), expand=False)
        for name in self.columns:
            right = name in ("seed", "stage", "left")
            width = {"method": self.name, "now": self.now, "bar": BAR}.get(name)
            table.add_column(
                "" if name == "bar" else name, justify="right" if right else "left", width=width, no_wrap=True,
                overflow="ellipsis" if name == "now" else "fold",
            )  # fmt: skip
        for row in self.rows if rows is None else rows:
            cells: dict[str, Text | ProgressBar] = {
                "method": Text("\n".join(folded(row.method, self.name))),
                "state": Text(row.state, style=COLOUR[row.state]),
                "bar": ProgressBar(total=1.0, completed=row.fraction, width=BAR),
            }
            table.add_row(*(cells.get(name) or Text(getattr(row, name)) for name in self.columns))
        return table


def layout(rows: Sequence[Row], width: int | None) -> Layout:
    """Columns that fit `width`; None (a file): all columns without the bar."""
    rows = list(rows)
    every = tuple(name for name in COLUMNS if name != "where" or any(row.where for row in rows))
    going = tuple(name for name in GOING if name in every)
    if width is None:
        columns = tuple(name for name in every if name != "bar")
        return Layout(rows, columns, _widest(rows, "method"), _widest(rows, "now"))
    for gone in range(len(going) + 1):
        columns = tuple(name for name in every if name not in going[:gone])
        rows = rows if "seed" in columns else _with_seeds(rows)
        name = max([len("method"), *(len(line) for row in rows for line in folded(row.method, NAME))])
        fewest = name if gone <= going.index("now") else min(name, LEAST)
        rest = GAP * (len(columns) - 1) + sum(_needed(rows, column) for column in columns)
        if width - rest >= fewest:
            break
    name = max(1, min(name, width - rest))
    now = min(NOW[1], NOW[0] + width - rest - name)
    return Layout(rows, columns, name, now)


def _needed(rows: Sequence[Row], column: str) -> int:
    """Minimum width of a column other than the method's name."""
    fixed = {"method": 0, "now": NOW[0], "bar": BAR, "left": max(LEFT, _widest(rows, "left"))}
    return fixed[column] if column in fixed else _widest(rows, column)


def _widest(rows: Sequence[Row], column: str) -> int:
    return max([len(column), *(len(getattr(row, column)) for row in rows)])


def _with_seeds(rows: Sequence[Row]) -> list[Row]:
    """Rows with the seed in the name, if there are several seeds."""
    if len({row.seed for row in rows}) < 2:
        return list(rows)
    return [replace(row, method=f"{row.method} s{row.seed}") for row in rows]
