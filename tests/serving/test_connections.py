"""Connections without a request do not keep others out."""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.serving.living import Living

PATIENCE = 60.0
SILENT = [
    b"",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
]


def opened(stack: ExitStack, port: int, count: int) -> list[socket.socket]:
    """Connections that send nothing, half of the headers, or half of a body."""
    found = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]
    for number, connection in enumerate(found):
        connection.sendall(SILENT[number % len(SILENT)])
        connection.setblocking(False)
    return found


def closed(connections: list[socket.socket]) -> bool:
    """Whether the server ends all of them."""
    end, left = time.monotonic() + PATIENCE, set(connections)
    while left and time.monotonic() < end:
        poll = select.poll()
        by_number = {each.fileno(): each for each in left}
        for number in by_number:
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll(1000):
            try:
                ended = not by_number[number].recv(4096)
            except ConnectionError:
                ended = True
            if ended:
                left.discard(by_number[number])
    return not left


@pytest.mark.slow  # a connection may be silent for ten seconds
def test_silent_connections_keep_nobody_out(served: Living) -> None:
    port = int(served.url.rpartition(":")[2])
    with ExitStack() as stack:
        silent = opened(stack, port, 300)
        with served.client() as client:
            assert client.get("/health").status_code == 200
            reply = client.post("/v1/completions", json={"model": "work", "prompt": "a", "max_tokens": 2})
            assert reply.status_code == 200
        assert closed(silent)
