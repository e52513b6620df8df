"""The server: uvicorn over the application, until a signal ends it."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn

from moextend.model.multimodal import MultimodalLM
from moextend.serving import errors
from moextend.serving.app import Options, application
from moextend.serving.catalogue import Catalogue
from moextend.serving.engine import Engine, Limits
from moextend.serving.guard import Guard, refusal
from moextend.serving.metrics import Metrics
from moextend.util import listening
from moextend.util.listening import LogFormat, hosts_of

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REQUESTS = 4096
"""Maximum number of requests at a time, whose bodies take memory."""
MARGIN = 3
"""Seconds for sending errors to the requests that are not answered in time."""
AT_ONCE = 1.0
"""The same after a second signal."""
LAST = 30
"""Seconds after all others at which the system ends a process that still does not end."""


@dataclass(frozen=True)
class Access:
    """Who is answered."""

    host: str
    key: str | None = None
    most: int = 32 << 20
    """Bytes of a body."""
    log: LogFormat | None = None
    """Form of the access log; None: none is written."""


class Server(uvicorn.Server):
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
        """Context in which SIGTERM and SIGINT stop the server.

        They raise nothing, so that threads that compute are not left by half of a shutdown. If the context does not end
        in time after the first one, the system ends the process, whatever blocks it.
        """
        if threading.current_thread() is not threading.main_thread():  # the caller calls stop
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            _set_alarm(0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        if not self.should_exit:
            _set_alarm(self._grace + MARGIN + AT_ONCE + LAST)
        if self._loop is None:  # it ends after its start
            self.stop()
        self._in_loop(self.stop)

    def stop(self) -> None:
        """Takes no more requests, and ends after the open ones; a second call ends these at once."""
        if self.should_exit:
            self._engine.close(0)
            self._in_loop(lambda: asyncio.get_running_loop().call_later(AT_ONCE, self._force))
        else:
            self._engine.close(self._grace)
            self.should_exit = True

    def _in_loop(self, function: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                self._loop.call_soon_threadsafe(function)

    def _force(self) -> None:
        for connection in self.server_state.connections:
            if connection.transport is not None:
                connection.transport.abort()
        self.force_exit = True


def _set_alarm(seconds: float) -> None:
    """Has the system end the process after these seconds; 0: not any more. Where it cannot, nothing happens."""
    if hasattr(signal, "setitimer"):
        if seconds:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


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
    metrics = Metrics()
    engine = Engine(Catalogue(model), limits, metrics)
    hosts = hosts_of(access.host, opened) if access.key is None else None
    guard = Guard(application(engine, metrics, options), metrics, access.key, hosts, access.most)
    counted = listening.Counted(guard, REQUESTS, refusal(errors.crowded()), access.log)
    return Server(listening.config_of(counted, grace=int(grace) + MARGIN), engine, grace), engine


def serve(
    server: Server, engine: Engine, opened: socket.socket, ready: Callable[[], Any] = lambda: None
) -> bool:
    """Serves until SIGTERM or SIGINT; `ready` is called when requests are taken.

    Returns whether nothing is computed any more; if something is, the interpreter should not be shut down under it.
    """
    with server.signals():
        engine.start()
        try:
            with opened:
                server.ready = ready
                server.run(sockets=[opened])
        finally:
            engine.close(0)
            engine.join(AT_ONCE)
        return not engine.is_computing
