"""A server of a folder of runs, and what it answers, byte by byte."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from moextend.bench.report.serve import server
from moextend.bench.run.rundir import RunDir

PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Served:
    """A running server."""

    address: server.Address

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        """An answer; the path is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=PATIENCE)
        connection.request(
            method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        found = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return found

    def events(self, **headers: str) -> Iterator[dict[str, Any]]:
        """The messages of one tab."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=PATIENCE)
        connection.request("GET", "/events", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        try:
            while line := answer.readline():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            connection.close()


@contextmanager
def served(runs: Path, *, host: str = "127.0.0.1", token: bool = False) -> Iterator[Served]:
    """A server of the runs on a free port."""
    address = server.Address.opened(host, 0, token=token)
    running = server.server_of(address, runs, [], runs.parent)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [address.socket]})
    thread.start()
    try:
        yield Served(address)
    finally:
        running.should_exit = True
        thread.join(PATIENCE)
        address.socket.close()
        assert not thread.is_alive()


def cut(run: RunDir, cells: int) -> list[str]:
    """Takes all but the first cells from a run, as if they were not scored yet; the lines that were taken."""
    path = run.folder / "scores.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:cells]))
    return lines[cells:]


def add(run: RunDir, lines: list[str]) -> None:
    """Appends cells to a run."""
    with (run.folder / "scores.jsonl").open("a") as file:
        file.writelines(lines)


def report_of(site: Served, version: str) -> Any:
    """The report of a version."""
    return json.loads(site.get(f"/parts/report.json?v={version}").body)


def until(events: Iterator[dict[str, Any]], wanted: Any) -> dict[str, Any]:
    """The first message for which `wanted` holds."""
    end = time.monotonic() + PATIENCE
    for message in events:
        if wanted(message):
            return message
        assert time.monotonic() < end
    raise AssertionError("the server ended the stream")
