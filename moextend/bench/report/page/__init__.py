"""The report as a page: one file, a folder for larger runs, or served while runs work. All load nothing from elsewhere.

A served page is a folder of files and one JSON that it polls.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.resources import files as resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from moextend.bench.report import How
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.page.data import REPORT, parts
from moextend.bench.report.page.items import LEVEL
from moextend.bench.report.style import find_style
from moextend.bench.run.live import row_of
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import FACTS, RunDir, find_runs, run_name
from moextend.errors import UnknownName, visible
from moextend.util import files
from moextend.util.foreign import explained
from moextend.util.listening import LOCAL, check_packages, listen, url_of

if TYPE_CHECKING:
    from starlette.applications import Starlette

POLICY = (
    "default-src 'none'; img-src data: {own}; media-src data: {own}; style-src 'unsafe-inline' {own}; "
    "script-src 'unsafe-inline' {own}"
)
"""Nothing is loaded from anywhere but the page's own folder."""
FOLDER = "'self' file:"
"""The page's own folder, on a server or on a disk."""
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="generator" content="moextend">
{policy}<link rel="icon" href="data:,"><title>{title}</title>
{style}</head><body>
<div id="app"><noscript>This page needs JavaScript. The same tables as text: moextend bench report.</noscript></div>
{scripts}
</body></html>
"""
HOST = LOCAL[0]
RESULTS = ("config.json", "scores.jsonl", FACTS)
"""Files of a run whose change makes another report."""
PAUSE = 15.0
"""Minimum seconds between two reports."""
FRESH = 1.0
"""Seconds for which the states of the runs are not read again."""


def page(experiments: Sequence[Experiment], how: How | None = None, workspace: Path | None = None) -> str:
    """One HTML file with everything in it; see data.parts."""
    found, style = parts(experiments, how, workspace), f"<style>{asset('page.css')}</style>"
    return _document(experiments, found.values, _policy(), style, f"<script>{asset('page.js')}</script>")


def bundle(
    experiments: Sequence[Experiment], folder: Path, how: How | None = None, workspace: Path | None = None, *,
    live: str | None = None, site: Any = None,
) -> Path:  # fmt: skip
    """Writes index.html with parts and images into `folder`; the path of index.html.

    Args:
        experiments: what the page shows.
        folder: where the files go.
        how: as data.parts takes it.
        workspace: likewise.
        live: the version of the page that a server compares with its runs; None: no server is asked.
        site: what a first view of all experiments shows, each of which is then a part of its own; None: no such view.
    """
    # In a site, which is for a host, media are in the parts: thousands of small files are a burden there.
    found = parts(experiments, how, workspace, inline=site is not None)
    first = {REPORT: found.values.pop(REPORT)} | ({"live": live} if live else {})
    if site is not None:
        each = first[REPORT]["experiments"]
        found.values |= {f"e{number}": experiment for number, experiment in enumerate(each)}
        first = {"site": site}
    for name, value in found.values.items():
        packed = base64.b64encode(zlib.compress(encoded(value).encode(), LEVEL)).decode()
        files.write_text(
            folder / "parts" / f"{name}.js", f'moextendPart("{name}","{packed}")\n', synced=False
        )
    for name, data in found.files.items():
        files.write_bytes(folder / name, data, synced=False)  # thousands of files that can be made again
    for name in ("page.js", "page.css"):
        files.write_text(folder / name, asset(name))
    policy = _policy(FOLDER, "" if live is None else "; connect-src 'self'")
    style, script = '<link rel="stylesheet" href="page.css">', '<script src="page.js"></script>'
    files.write_text(folder / "index.html", _document(experiments, first, policy, style, script))
    return folder / "index.html"


def _document(
    experiments: Sequence[Experiment], values: Mapping[str, Any], policy: str, style: str, script: str
) -> str:
    """The HTML with these parts in it."""
    blocks = [
        f'<script type="application/json" id="part-{name}">{encoded(value)}</script>'
        for name, value in values.items()
    ]
    names = dict.fromkeys(experiment.name for experiment in experiments)
    title = f"{', '.join(names) or 'no results'}: moextend report"
    title = "moextend leaderboard" if "site" in values else escape(visible(title))
    return TEMPLATE.format(policy=policy, title=title, style=style, scripts="\n".join([*blocks, script]))


def encoded(value: Any) -> str:
    """JSON that is safe inside <script>: no text ends the element or opens a comment, and all of it is UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair


def asset(name: str) -> str:
    """The text of a built asset; its source is page/ at the top of the repository."""
    return (resources(__package__) / "assets" / name).read_text(encoding="utf-8")


def _policy(own: str = "", more: str = "") -> str:
    return f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(own=own).strip()}{more}">\n'


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
        known = [[str(run.folder), *(_changed(run.folder / name) for name in RESULTS)] for run in runs]
        version = files.digest(known, [row["state"] == "done" for row in rows])
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
            how = How(style=find_style(None, self.workspace))
            bundle(experiments, self.folder, how, self.workspace, live=version)
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
    from moextend.util import http

    with listen(HOST, port) as socket, TemporaryDirectory(prefix="moextend-page-") as folder:
        app = application(Live(runs, names, workspace, Path(folder)))
        on_start(url_of(HOST, socket.getsockname()[1]))
        http.Server(http.config_of(app, grace=2)).run(sockets=[socket])


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
