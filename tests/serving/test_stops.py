"""`moextend serve` ends at a signal, whatever happens around it."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests import preloaded

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

PATIENCE = 120
"""Seconds that a server has to start, and to end, on a busy machine."""


class Forked:
    """A `moextend serve tiny` in a forked process."""

    def __init__(self, server: str, errors: int) -> None:
        ours, theirs = os.pipe()
        order = preloaded.order("cli", "serve", "tiny", "--port", "0")
        self.client = preloaded.connect(server, order, (0, theirs, errors))
        self.client.settimeout(PATIENCE)
        self.pid = preloaded.pid_of(self.client)
        os.close(theirs)
        self.out = ours

    def address(self) -> tuple[str, int]:
        """Where it serves; it is ready then."""
        assert select.select([self.out], [], [], PATIENCE)[0], "it does not start"
        line = os.read(self.out, 1000).decode()
        found = re.match(r"http://([\d.]+):(\d+)/v1 serves base ", line)
        assert found, line
        return found[1], int(found[2])

    def ends(self, *numbers: int) -> int:
        """Its exit status after these signals."""
        for number in numbers:
            os.kill(self.pid, number)
        return preloaded.status_of(self.client)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.client.close()
        os.close(self.out)


Start = Callable[..., Forked]


@pytest.fixture
def start(fork_server: str, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        errors = os.open(tmp_path / "errors", os.O_WRONLY | os.O_CREAT)
        stack.callback(os.close, errors)

        def call() -> Forked:
            made = Forked(fork_server, errors)
            stack.callback(made.close)
            return made

        yield call


def test_open_connections_do_not_keep_it(start: Start, tmp_path: Path) -> None:
    server = start()
    address = server.address()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    with socket.create_connection(address), socket.create_connection(address) as half:
        half.sendall(head)
        assert server.ends(signal.SIGINT) == 0  # after the seconds that open requests get
    assert (tmp_path / "errors").read_text().endswith("stopped.\n")


def test_a_signal_before_it_serves_ends_it(start: Start, tmp_path: Path) -> None:
    server = start()
    time.sleep(0.6)
    assert server.ends(signal.SIGTERM) in (0, 143, -signal.SIGTERM), (tmp_path / "errors").read_text()
