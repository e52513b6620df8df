"""One look at the runs for all readers: at most once a second, and only while somebody reads."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moextend.bench.report.serve.build import Build, build
from moextend.bench.report.serve.live import Row, Runs

EVERY = 1.0
"""Minimum seconds between two looks at the runs' files."""
SHARE = 0.1
"""Maximum share of the time in which reports are built while a run works; the last report need not wait."""
SILENCE = 15.0
"""Seconds after which a reader without news is sent an empty line, so that the connection stays open."""


@dataclass
class Watcher:
    """The rows of all runs, and the report as it was last built."""

    runs: Runs
    workspace: Path
    ending: Callable[[], bool] = lambda: False
    """Whether the server is about to end."""
    readers: int = 0
    build: Build = field(default_factory=Build)
    version: str = ""
    """Names the build; "" before the first one."""

    def __post_init__(self) -> None:
        self._server = secrets.token_hex(4)  # a version of another process is another one
        self._builds = self._news = 0
        self._rows: dict[str, tuple[int, Row | None]] = {}
        self._built_from: str | None = None
        self._next_build = 0.0
        self._builder: asyncio.Task[None] | None = None
        self._wanted, self._changed = asyncio.Event(), asyncio.Event()

    async def watch(self) -> None:
        """Looks at the runs as long as the server runs."""
        while not self.ending():
            if self.readers == 0:
                self._wanted.clear()
            await self._wanted.wait()
            await self._look()
            await asyncio.sleep(EVERY)

    async def news(self) -> AsyncIterator[str]:
        """JSON texts for one reader: everything first, then what changes; "" where nothing does for a while."""
        self.readers += 1
        self._wanted.set()
        seen, sent = 0, time.monotonic()
        try:
            while not self.ending():
                if self._news > seen:
                    message, seen, sent = self._message(seen), self._news, time.monotonic()
                    yield json.dumps(message, allow_nan=False)
                elif time.monotonic() - sent > SILENCE:
                    sent = time.monotonic()
                    yield ""
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), EVERY)
        finally:
            self.readers -= 1

    def _message(self, seen: int) -> dict[str, Any]:
        """What changed after the news with the number `seen`; a row is None where its run was removed."""
        rows = {name: row for name, (news, row) in self._rows.items() if news > seen}
        return {"all": not seen, "rows": rows, "version": self.version, "notes": self.build.notes}

    async def _look(self) -> None:
        rows: Mapping[str, Row | None] = await asyncio.to_thread(self.runs.look)
        gone = dict.fromkeys(self._rows.keys() - rows.keys())
        changed = {
            name: row for name, row in {**rows, **gone}.items() if self._rows.get(name, (0, None))[1] != row
        }
        if changed or not self._news:
            self._tell(changed)
        results = self.runs.results()
        building = self._builder is not None and not self._builder.done()
        due = time.monotonic() >= self._next_build or not self.runs.working()
        if results != self._built_from and not building and due:
            self._builder = asyncio.create_task(self._rebuild(results))

    async def _rebuild(self, results: str) -> None:
        began = time.monotonic()
        runs = [seen.run for seen in self.runs.seen.values()]
        made = await asyncio.to_thread(build, runs, self.workspace)
        self._built_from = results
        if made.contents:
            self._builds += 1
            self.build, self.version = made, f"{self._server}-{self._builds}"
        else:  # what was there stays
            self.build = replace(self.build, notes=made.notes)
        now = time.monotonic()
        self._next_build = now + (now - began) * (1 / SHARE - 1)
        self._tell({})

    def _tell(self, rows: Mapping[str, Row | None]) -> None:
        """Wakes all readers for rows that changed, or another build."""
        self._news += 1
        self._rows |= {name: (self._news, row) for name, row in rows.items()}
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
