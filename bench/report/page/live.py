"""The page over the runs of a workspace while they work: a folder of files, and one JSON that the page polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.page.document import bundle
from moextend.bench.report.style import find_style
from moextend.bench.run.live import row_of
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import FACTS, RunDir, find_runs, run_name
from moextend.errors import UnknownName, visible
from moextend.util.files import digest
from moextend.util.foreign import explained
from moextend.util.listening import LOCAL, check_packages, config_of, listen, url_of

if TYPE_CHECKING:
    from starlette.applications import Starlette

HOST = LOCAL[0]
RESULTS = ("config.json", "scores.jsonl", FACTS)
"""Files of a run whose change makes another report."""
PAUSE = 15.0
"""Minimum seconds between two reports."""
FRESH = 1.0
"""Seconds for which the states of the runs are not read again."""


@dataclass
class Live:
    """The runs below a folder, or those with the given names, and the folder of their page."""

    runs: Path
    names: Sequence[str]
    workspace: Path
    folder: Path
    notes: list[str] = field(default_factory=list)
    """Why there are no results, or not all."""
    version: str = ""
    """Changes with the report in the folder."""
    _state: dict[str, Any] = field(default_factory=dict)
    _looked: float = float("-inf")
    _built: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self) -> dict[str, Any]:
        """What the page polls: a row per run, notes, and the version of the report."""
        with self._lock:
            if time.monotonic() > self._looked + FRESH:
                self._look()
            return self._state

    def _look(self) -> None:
        try:
            runs = find_runs(self.runs, self.names)
        except (UnknownName, OSError):  # a named run was removed, or all are out of reach
            runs = []
        rows = [_row(run) for run in runs]
        files = [[str(run.folder), *(_changed(run.folder / name) for name in RESULTS)] for run in runs]
        version = digest(files, [row["state"] == "done" for row in rows])
        working = any(row["state"] == "running" for row in rows)
        if version != self.version and (not working or time.monotonic() > self._built + PAUSE):
            self._build(runs, version)
        self._state = {"version": self.version, "runs": rows, "notes": self.notes}
        self._looked = time.monotonic()

    def _build(self, runs: Sequence[RunDir], version: str) -> None:
        """Writes the page of all runs with a score; whatever is wrong with them becomes a note."""
        experiments: list[Experiment] = []
        try:
            self.notes = []
            for experiment in collect(runs, unfinished=True) if runs else ():
                experiment.results = [result for result in experiment.results if result.cells]
                if experiment.results:
                    experiments.append(experiment)
                else:
                    self.notes += [f"left out: {visible(name)}" for name in experiment.left_out]
            style = find_style(None, self.workspace)
            bundle(experiments, self.folder, live=version, style=style, workspace=self.workspace)
        except Exception as error:  # what was there stays
            self.notes = [visible(str(explained(error)))]
            if not self.version:
                bundle([], self.folder, live=version)
        self.version, self._built = version, time.monotonic()


def application(live: Live) -> Starlette:
    """Routes: `/live.json`, and the files of the page. Only names of this machine are answered."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    def state(_: Request) -> JSONResponse:
        return JSONResponse(live.state(), headers={"Cache-Control": "no-store"})

    live.state()
    return Starlette(
        routes=[Route("/live.json", state), Mount("/", StaticFiles(directory=live.folder, html=True))],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL))],  # DNS rebinding
    )


def serve(runs: Path, names: Sequence[str], workspace: Path, port: int, on_start: Any = print) -> None:
    """Serves the page of the runs on this machine until Ctrl-C, which raises KeyboardInterrupt.

    Args:
        runs: the folder of the runs.
        names: names of runs or sequences; none: all.
        workspace: where the data of tasks are looked for.
        port: 0 for a free one.
        on_start: receives the address.

    Raises:
        InputError: starlette or uvicorn is missing, or the port is in use.
    """
    check_packages(("starlette", "uvicorn"), where="bench serve")
    import uvicorn

    with listen(HOST, port) as socket, TemporaryDirectory(prefix="moextend-page-") as folder:
        app = application(Live(runs, names, workspace, Path(folder)))
        on_start(url_of(HOST, socket.getsockname()[1]))
        uvicorn.Server(config_of(app, grace=2)).run(sockets=[socket])


def _row(run: RunDir) -> dict[str, Any]:
    common = {"run": visible(run_name(run.folder)), "sequence": visible(run.folder.parent.name)}
    try:
        return {**common, **asdict(row_of(run, read_status(run.folder)))}
    except Exception as error:
        return {**common, "state": "damaged", "now": visible(str(explained(error)))}


def _changed(path: Path) -> list[int]:
    """Size of a file and the time of its last change; empty without the file."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]
