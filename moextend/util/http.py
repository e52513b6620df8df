"""uvicorn for servers that unknown clients reach: slow connections are closed, and only requests are counted."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 10.0
"""Seconds that a client may take to send a request, or to read what fills its buffer."""
RATE = 20_000
"""Bytes of a request that give its client another second."""
CROWD, HURRY = 256, 1.0
"""With more waiting connections than this, each of them has so many seconds."""
LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\nContent-Length: 36\r\nConnection: close\r\n\r\n"
    b"The request did not arrive in time.\n"
)
_STATUS = "moextend.status"
"""Key of a request's state: the status of an answer that the connection gave, and not the application."""
LogFormat = Literal["text", "json"]


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

    @property
    def is_waiting(self) -> bool:
        """Whether the client has to send or to read something."""
        owes = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        return owes or self.flow.write_paused or self.transport.is_closing()

    def close_late(self, patience: float) -> None:
        """Closes the connection if its client takes longer than it may."""
        if time.monotonic() < self._since + patience + self._received / RATE:
            return
        unanswered = self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE)
        if self._received and unanswered and not self.transport.is_closing():
            if self.scope is not None:
                self.scope["state"][_STATUS] = 408
            self.transport.write(LATE)
            self.transport.close()
            self._since = time.monotonic()  # to take the answer
        else:
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn that closes connections whose clients keep it waiting."""

    async def on_tick(self, counter: int) -> bool:
        """Looks at the connections every second; whether the server ends."""
        if counter % 10 == 0:
            waiting = [each for each in self.server_state.connections if cast(Protocol, each).is_waiting]
            for each in waiting:
                cast(Protocol, each).close_late(PATIENCE if len(waiting) <= CROWD else HURRY)
        return await super().on_tick(counter)


@dataclass
class Counted:
    """An application that answers a number of requests at a time, and writes a line about each to standard error."""

    app: ASGIApp
    most: int
    """Requests at a time; open connections without a request do not count."""
    refusal: ASGIApp
    """Answers those above."""
    log: LogFormat | None = None
    """Form of the lines; None: none are written."""
    active: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, gone = time.monotonic(), 499, False

        async def heard() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and not gone:
                status = message["status"]
            await send(message)

        self.active += 1
        try:
            await (self.app if self.active <= self.most else self.refusal)(scope, heard, noted)
        finally:
            self.active -= 1
            if self.log is not None:
                status = scope.get("state", {}).get(_STATUS, status)
                print(_line(self.log, scope, status, time.monotonic() - start), file=sys.stderr, flush=True)


def _line(form: LogFormat, scope: Scope, status: int, seconds: float) -> str:
    """A line about a request, without its query and content; status 499: the client closed the connection."""
    values = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "client": (scope.get("client") or ["-"])[0],
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),  # as it was sent: without line breaks
        "status": status,
        "seconds": round(seconds, 3),
        "model": scope.get("state", {}).get("model"),
    }
    if form == "json":
        return json.dumps(values)
    model = values.pop("model")
    return " ".join([*map(str, values.values()), *([] if model is None else [json.dumps(model)])])


def config_of(app: ASGIApp, *, grace: int) -> uvicorn.Config:
    """Settings of a `Server`; `grace`: seconds that answers may still take at its end."""
    # Without a logging configuration: setting one closes the handlers of all other libraries.
    return uvicorn.Config(
        app, http=Protocol, access_log=False, log_config=None, log_level="error", lifespan="off", ws="none",
        server_header=False, proxy_headers=False, timeout_keep_alive=int(PATIENCE), timeout_graceful_shutdown=grace,
    )  # fmt: skip
