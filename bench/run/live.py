"""Shows the progress of runs: a live table, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from moextend.bench.run.complete import planned, stage_names
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import Status
from moextend.bench.run.rundir import Cell, Key, RunDir
from moextend.bench.run.statuses import Layout, Row, layout, row_of, seconds_left, summary
from moextend.errors import MoextendError, duration, visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

ROWS = 24
"""Maximum number of rows of the live table; running runs come first."""
ETA_EVERY = 60.0
"""Minimum seconds between two lines with the time left; a sixtieth of that time if it is longer."""


class LiveView:
    """A table on the terminal that is redrawn during the runs."""

    def __init__(self, runs: Sequence[Path], jobs: int, console: Console) -> None:
        from rich.live import Live

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
        from rich.console import Group
        from rich.text import Text

        found = [(run, read_status(run.folder)) for run in self.runs]
        statuses = [status for _, status in found]
        elapsed = time.monotonic() - self.began
        fit = layout([row_of(run, status, where=False) for run, status in found], self.console.width)
        words = summary(statuses, self.jobs, elapsed, hidden=len(found))
        shown = _shown(fit, self.console.height - 2 - len(words) // self.console.width)
        words = summary(statuses, self.jobs, elapsed, hidden=len(found) - len(shown))
        return Group(fit.table(shown), Text(words, style="dim"))


def _shown(fit: Layout, lines: int) -> list[Row]:
    """All rows, or those that fit `lines`: running runs first."""
    rows = fit.rows
    if len(rows) > ROWS or sum(map(fit.height, rows)) > lines:
        rows = sorted(rows, key=lambda row: row.state != "running")[:ROWS]
        while len(rows) > 1 and sum(map(fit.height, rows)) > lines:
            rows.pop()
    return rows


def view(runs: Sequence[Path], jobs: int, console: Console) -> LiveView | PlainView:
    """The table as it fits the console."""
    return LiveView(runs, jobs, console) if console.is_terminal else PlainView(runs, jobs, console)


class PlainView:
    """One line whenever a stage has been scored, a run ends, or a minute has passed: for logs and pipes.

    The scores show which stages are scored, not the phase of a run, which may change between two reads.
    """

    def __init__(self, runs: Sequence[Path], jobs: int, console: Console) -> None:
        self.runs, self.jobs, self.console = [RunDir(run) for run in runs], jobs, console
        self.began = time.monotonic()
        self.reported_left: float | None = None
        self.states = {run.folder: read_status(run.folder).state for run in self.runs}
        self.scores = {run.folder: _Scores(run) for run in self.runs}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: Any) -> None:
        return

    def update(self) -> None:
        """Prints the events since the last call."""
        statuses = []
        for run in self.runs:
            status = read_status(run.folder)
            statuses.append(status)
            for line in self._news(run, status):
                self._print(f"{run.folder.name}: {line}")
        self._print_left(statuses)

    def _news(self, run: RunDir, status: Status) -> list[str]:
        scores = self.scores[run.folder]
        before, self.states[run.folder] = self.states[run.folder], status.state
        changed = status.state != before
        # A short run may have ended since the last look; one whose process never came has no number of it.
        began = before != "running" and status.state != "waiting" and status.pid is not None
        lines = ["started"] if changed and began else []
        lines += scores.news()
        if changed and status.state == "done":
            lines.append(f"done in {duration(status.elapsed)}{scores.means(len(stage_names(run.config)))}")
        elif changed and status.state == "failed" and status.error:
            lines.append(f"failed: {visible(status.error.what or '')}")
        elif changed and status.state in ("failed", "interrupted"):
            lines.append(status.state)
        return lines

    def _print_left(self, statuses: Sequence[Status]) -> None:
        """Prints the time left when it is first known, and then at most once a minute."""
        left, now = seconds_left(statuses, self.jobs), time.monotonic()
        if not left or (
            self.reported_left is not None and now - self.reported_left < max(ETA_EVERY, left / 60)
        ):
            return
        self.reported_left = now
        self._print(summary(statuses, self.jobs, now - self.began))

    def _print(self, line: str) -> None:
        # Not by rich, which ends the process where nobody reads the pipe any more.
        if not self.console.quiet:
            print(line, file=self.console.file, flush=True)


class _Scores:
    """Scores of a run, and the stages that are newly scored."""

    def __init__(self, run: RunDir) -> None:
        self.run, self.path = run, run.folder / "scores.jsonl"
        self.seen: tuple[int, int] | None = None
        self.cells: Mapping[Key, Cell] = {}
        self.known: set[int] = set()
        self.news()

    def news(self) -> list[str]:
        """One line for each stage that is newly complete."""
        try:
            found = self.path.stat()
            if (found.st_size, found.st_mtime_ns) == self.seen:
                return []
            self.seen, self.cells = (found.st_size, found.st_mtime_ns), self.run.cells()
        except (OSError, MoextendError):  # not there yet, or damaged, which the run itself says
            return []
        lacking = {stage for stage, task in planned(self.run.config) if (stage, task) not in self.cells}
        last = len(stage_names(self.run.config))
        new = [stage for stage in range(last + 1) if stage not in lacking | self.known]
        self.known = (self.known | set(new)) - lacking  # cells that are dropped are scored again
        return [f"stage {stage}/{last} scored{self.means(stage)}" for stage in new]

    def means(self, stage: int) -> str:
        """Mean scores of a stage as text: ": mean of tasks 61.2, text 88.0"."""
        config = self.run.config
        kinds = {"tasks": config.stages, "text": config.retention, "transfer": config.transfer}
        means = {
            name: [self.cells[stage, task].value for task in tasks if (stage, task) in self.cells]
            for name, tasks in kinds.items()
        }
        scores = ", ".join(f"{name} {fmean(values):.1f}" for name, values in means.items() if values)
        return f": mean of {scores}" if scores else ""
