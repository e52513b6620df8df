"""The server: uvicorn over the application, until a signal ends it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moextend.model.multimodal import MultimodalLM
from moextend.serving import errors
from moextend.serving.app import Options, application
from moextend.serving.catalogue import Catalogue
from moextend.serving.engine import Engine, Limits
from moextend.serving.errors import ApiError
from moextend.util import http, listening
from moextend.util.listening import LogFormat, hosts_of, is_answered

REQUESTS = 4096
"""Maximum number of requests at a time, whose bodies take memory."""
MARGIN = 3
"""Seconds for sending errors to the requests that are not answered in time."""
AT_ONCE = 1.0
"""The same after a second signal."""
OPEN = "/health"
"""Path without a key."""


@dataclass(frozen=True)
class Access:
    """Who is answered."""

    host: str
    key: str | None = None
    """Key of the API; None: none is needed."""
    most: int = 32 << 20
    """Bytes of a body."""
    log: LogFormat | None = None
    """Form of the access log; None: none is written."""


@dataclass(frozen=True)
class Guard:
    """An application behind what a request must have: a known host, the key, and a body of bounded size."""

    app: ASGIApp
    access: Access
    hosts: Sequence[str] | None
    """Names in the Host header that are answered, against DNS rebinding; None: any."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        left, begun, most = self.access.most, False, self.access.most

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"the body has more than {most:,} bytes.")  # FastAPI hands it on
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            error = self._error(Request(scope))
            await (error.answer() if error else self.app)(scope, bounded, noted)
        except asyncio.CancelledError:  # uvicorn ends what takes longer than the grace
            if not begun:
                await errors.stopping().answer()(scope, receive, send)

    def _error(self, request: Request) -> ApiError | None:
        key = self.access.key
        if not is_answered(request.headers.get("host", ""), self.hosts):
            return ApiError(403, "this server does not answer requests for this host name.", code="host")
        if key is not None and request.scope["path"] != OPEN:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            same = secrets.compare_digest(given.encode(), key.encode())
            if scheme.lower() != "bearer" or not same:
                return ApiError(401, "the API key is missing or wrong.", code="invalid_api_key")
        return None


class Server(http.Server):
    """uvicorn with a graceful stop: answers that are on their way get `grace` seconds, the others an error."""

    def __init__(self, config: uvicorn.Config, engine: Engine, grace: float) -> None:
        super().__init__(config)
        self._engine, self._grace = engine, grace
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ready: Callable[[], Any] = lambda: None
        """Called once requests and signals are taken."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to take requests."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `signals` does it, for longer than uvicorn runs."""
        yield

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Context of the main thread in which SIGTERM and SIGINT stop the server, and raise nothing."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Takes no more requests, and ends after the open ones; a second call ends these at once."""
        again, self.should_exit, loop = self.should_exit, True, self._loop
        self._engine.close(0 if again else self._grace)
        if again and loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                loop.call_soon_threadsafe(loop.call_later, AT_ONCE, self._force)

    def _force(self) -> None:
        for connection in self.server_state.connections:
            if connection.transport is not None:
                connection.transport.abort()
        self.force_exit = True


def server_of(
    model: MultimodalLM,
    opened: socket.socket,
    access: Access,
    limits: Limits,
    options: Options,
    *,
    grace: float = 10,
) -> tuple[Server, Engine]:
    """The server of a model, and its engine, which `serve` starts.

    The extensions of `model` are changed by the engine only.
    """
    engine = Engine(Catalogue(model), limits)
    app = application(engine, options)
    hosts = hosts_of(access.host, opened) if access.key is None else None
    crowded = errors.busy(503, "the server answers too many requests.", "crowded").answer()
    counted = listening.Counted(Guard(app, access, hosts), REQUESTS, crowded, access.log)
    return Server(http.config_of(counted, grace=int(grace) + MARGIN), engine, grace), engine


def serve(
    server: Server, engine: Engine, opened: socket.socket, ready: Callable[[], Any] = lambda: None
) -> None:
    """Serves until `Server.stop`; `ready` is called when requests are taken.

    A thread may still compute or read afterwards, which nothing can interrupt.
    """
    engine.thread.start()
    try:
        with opened:
            server.ready = ready
            server.run(sockets=[opened])
    finally:
        engine.close(0)
        engine.thread.join(AT_ONCE)
