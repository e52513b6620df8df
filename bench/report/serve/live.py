"""Run folders -> one row per run: state, stage, current step, losses. Files are read again only if they changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moextend.bench.run.complete import LEARNED
from moextend.bench.run.progress import STATUS, read_status
from moextend.bench.run.records import StageCost, State
from moextend.bench.run.rundir import COST, FACTS, RunDir, find_runs, run_name
from moextend.bench.run.statuses import row_of
from moextend.errors import UnknownName, visible
from moextend.util.files import digest
from moextend.util.foreign import explained

RESULTS = ("config.json", "scores.jsonl", FACTS)
"""Files of a run that the report is made of, besides the files of its stages."""

Row = dict[str, Any]
Size = tuple[int, int] | None
"""Size and time of the last change of a file; None without a file."""


@dataclass
class Seen:
    """What is known of a run."""

    run: RunDir
    sizes: dict[str, Size]
    row: Row
    results: tuple[Any, ...]
    """Changes with everything that the report shows of the run."""
    state: State | None
    """None: the run cannot be read."""


@dataclass
class Runs:
    """The runs below a folder, or those with the given names."""

    folder: Path
    names: Sequence[str] = ()
    seen: dict[Path, Seen] = field(default_factory=dict)

    def found(self) -> list[RunDir]:
        """The runs as they are on the disk now."""
        try:
            return find_runs(self.folder, self.names)
        except (UnknownName, OSError):  # a named run was removed, or all are out of reach
            return []

    def look(self) -> dict[str, Row]:
        """Name of each run -> its row."""
        self.seen = {run.folder: self._looked(run) for run in self.found()}
        return {run_name(folder): seen.row for folder, seen in self.seen.items()}

    def working(self) -> bool:
        """Whether a run is running."""
        return any(seen.state == "running" for seen in self.seen.values())

    def results(self) -> str:
        """A digest that changes with what the report shows."""
        return digest(*([str(folder), *map(str, seen.results)] for folder, seen in self.seen.items()))

    def _looked(self, run: RunDir) -> Seen:
        sizes = {name: _size(run.folder / name) for name in (STATUS, *RESULTS)}
        before = self.seen.get(run.folder)
        # The process of a running run may have died, which no file says.
        if before and before.sizes == sizes and before.state not in ("running", "lost"):
            return before
        if before and before.sizes["config.json"] == sizes["config.json"]:
            run = before.run
        return _read(run, sizes, before)


def _read(run: RunDir, sizes: dict[str, Size], before: Seen | None) -> Seen:
    files = [sizes[name] for name in RESULTS]
    common = {"run": visible(run.folder.name), "sequence": visible(run.folder.parent.name)}
    try:
        status = read_status(run.folder)
        results = (*files, status.state, status.done)
        same = before is not None and before.results == results
        losses = before.row["losses"] if before and same else _losses(run)
        row = {**common, **asdict(row_of(run, status)), "losses": losses}
    except Exception as error:
        row = {**common, "state": "damaged", "now": visible(str(explained(error)))}
        return Seen(run, sizes, row, (*files, "damaged"), None)
    return Seen(run, sizes, row, results, status.state)


def _losses(run: RunDir) -> list[tuple[int, float]]:
    """(stage, loss at the end of its training) of the stages whose method recorded one."""
    found = {}
    for name in (LEARNED, COST):  # the costs are written last, and have what was learned, too
        for path in run.folder.glob(f"stages/*/{name}"):
            number, cost = path.parent.name.partition("-")[0], StageCost.read(path)
            loss = cost.notes.get("loss") if cost else None
            if number.isdecimal() and isinstance(loss, int | float):
                found[int(number)] = float(loss)
    return sorted(found.items())


def _size(path: Path) -> Size:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
