"""uvicorn that closes the connections of clients that keep it waiting."""

from __future__ import annotations

import time
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 10.0
"""Seconds that a client may take to send a request, or to read what fills its buffer."""
RATE = 20_000
"""Bytes of a request that give its client another second."""
CROWD, HURRY = 256, 1.0
"""With more waiting connections than this, each of them has so many seconds."""


class Protocol(H11Protocol):
    """HTTP of one connection, which knows since when its client keeps the server waiting."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._since, self._received = time.monotonic(), 0

    def data_received(self, data: bytes) -> None:
        """Takes bytes of a request."""
        if not self._received and self.conn.their_state is h11.IDLE:
            self._since = time.monotonic()
        self._received += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        self._since, self._received = time.monotonic(), 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Waits until the client reads."""
        self._since, self._received = time.monotonic(), 0
        super().pause_writing()

    def close_late(self, patience: float) -> None:
        """Closes the connection if its client takes longer than it may."""
        if time.monotonic() > self._since + patience + self._received / RATE:
            self.transport.abort()

    @property
    def is_waiting(self) -> bool:
        """Whether the client has to send or to read something."""
        owes = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        return owes or self.flow.write_paused or self.transport.is_closing()


class Server(uvicorn.Server):
    """uvicorn that closes connections whose clients keep it waiting."""

    async def on_tick(self, counter: int) -> bool:
        """Looks at the connections every second; whether the server ends."""
        if counter % 10 == 0:
            connections = [cast(Protocol, each) for each in self.server_state.connections]
            waiting = [each for each in connections if each.is_waiting]
            for each in waiting:
                each.close_late(PATIENCE if len(waiting) <= CROWD else HURRY)
        return await super().on_tick(counter)


def config_of(app: ASGIApp, *, grace: int) -> uvicorn.Config:
    """Settings of a `Server`; `grace`: seconds that answers may still take at its end."""
    # Without a logging configuration: setting one closes the handlers of all other libraries.
    return uvicorn.Config(
        app, http=Protocol, access_log=False, log_config=None, log_level="error", lifespan="off", ws="none",
        server_header=False, proxy_headers=False, timeout_keep_alive=int(PATIENCE), timeout_graceful_shutdown=grace,
    )  # fmt: skip
